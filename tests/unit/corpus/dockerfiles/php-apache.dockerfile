FROM php:8.2-apache
RUN set -eux; \
    apt-get update; \
    apt-get install -y --no-install-recommends libpng-dev; \
    docker-php-ext-install gd; \
    rm -rf /var/lib/apt/lists/*
ENV APACHE_DOCUMENT_ROOT /var/www/html/public
RUN sed -ri -e 's!/var/www/html!${APACHE_DOCUMENT_ROOT}!g' /etc/apache2/sites-available/*.conf
COPY --from=composer:2 /usr/bin/composer /usr/bin/composer
