ARG RUBY_VERSION=3.3.0
FROM ruby:$RUBY_VERSION-slim as base
WORKDIR /rails
ENV RAILS_ENV="production" \
    BUNDLE_WITHOUT="development:test"
FROM base as build
RUN bundle install
FROM base
COPY --from=build "${BUNDLE_PATH:-/usr/local/bundle}" "${BUNDLE_PATH:-/usr/local/bundle}"
RUN useradd rails
USER rails:rails
EXPOSE 3000
CMD ["./bin/rails", "server"]
