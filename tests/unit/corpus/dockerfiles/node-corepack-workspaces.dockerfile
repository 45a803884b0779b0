FROM node:22 AS base
ENV PNPM_HOME="/pnpm"
ENV PATH="$PNPM_HOME:$PATH"
RUN corepack enable
FROM base AS prod
RUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm install --prod
FROM base AS build
RUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm install
FROM base
COPY --from=prod /app/node_modules /app/node_modules
COPY --from=build /app/dist /app/dist
