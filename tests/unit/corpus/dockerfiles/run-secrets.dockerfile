FROM python:3
RUN --mount=type=secret,id=pip,target=/root/.pip/pip.conf,mode=0400,required \
    pip install private
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=ssh,required=true git clone git@example.org:x
RUN --mount=type=secret,src=aws ls /run/secrets/aws
