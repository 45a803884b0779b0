# syntax=docker/dockerfile:1.4
FROM debian
RUN <<EOT bash
  set -ex
  echo "$HOME"
EOT
RUN <<-'EOT'
	#!/usr/bin/env python3
	print("hi")
	EOT
