FROM alpine
ENV F=/usr/share/doc/read.me.gz E=
ENV A=${F#*/} B=${F##*/} C=${F%.*} D=${F%%.*} G=${F/read/write} H=${F//e/E} \
    I=${E:-dflt} J=${E-dflt} K=${F:+yes} L=${E:+yes} M=${U:-${F##*.}} N=\$F O='$F'
