FROM nginx
ARG PORT=8080
COPY --chmod=0644 <<nginx.conf <<"raw.conf" extra.conf /etc/nginx/conf.d/
server { listen ${PORT}; root \$document_root; }
nginx.conf
keep $uri as it is
raw.conf
