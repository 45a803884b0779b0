FROM node:lts
ARG NODE_ENV=production
ENV NODE_ENV ${NODE_ENV}
USER node
WORKDIR /home/node/app
COPY --chown=node:node . .
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --retries=3 CMD node healthcheck.js
CMD [ "node", "server.js" ]
