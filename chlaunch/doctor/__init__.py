"""What is wrong, and what to do: messages explained; host and image looked over. Knows no click."""
