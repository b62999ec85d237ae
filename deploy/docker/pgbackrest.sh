# Debian's pgBackRest whole in one folder, with the loader, the libraries and the authorities that it needs: pgbackrest.sh FOLDER
# So it runs in an image of any C library: TimescaleDB's is Alpine's. dpkg's entries come along, so that scanners know what is in it.
set -eu
image=$1
root=/opt/pgbackrest
mkdir -p "$image$root/lib" "$image/usr/local/bin" "$image/var/lib/dpkg/status.d"
cp /usr/bin/pgbackrest "$image$root/pgbackrest"
cp /etc/ssl/certs/ca-certificates.crt "$image$root/"
ldd /usr/bin/pgbackrest | sed -n 's/^\t\(.* => \)\{0,1\}\(\/[^ ]*\) .*/\2/p' | while read -r library; do
    cp -L "$library" "$image$root/lib/"
    # Merged /usr: dpkg knows the file under one of its two names.
    dpkg-query -S "$library" "/usr$library" "$(readlink -f "$library")" 2>/dev/null | sed -n '/^diversion/!{s/:.*//;p;q}'
done >/build/packages
printf 'pgbackrest\nca-certificates\n' >>/build/packages
sort -u /build/packages | while read -r package; do
    dpkg -s "$package" >"$image/var/lib/dpkg/status.d/$package"
done
loader=$(ls "$image$root/lib" | grep '^ld-linux')
patchelf --set-interpreter "$root/lib/$loader" --force-rpath --set-rpath "$root/lib" "$image$root/pgbackrest"
ln -s "$root/pgbackrest" "$image/usr/local/bin/pgbackrest"
find "$image" -exec touch --no-dereference --date=@0 {} +
