"""What is wrong, and what to do: messages explained, and (later) the host looked over. Knows no click."""
