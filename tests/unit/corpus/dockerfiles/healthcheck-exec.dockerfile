FROM thing
HEALTHCHECK --interval=1m30s --start-interval=500ms --retries=0 \
  CMD ["curl", "-f", "http://localhost/"]
