# The root file system of an image, from the packages of the stage that it runs in: root.sh FOLDER
# dpkg's entries of these packages come along, so that scanners know them.
set -eu
root=$1
packages="base-files ca-certificates libbz2-1.0 libc6 libdb5.3t64 libexpat1 libffi8 libgcc-s1 liblzma5 libncursesw6 libpython3.13-minimal
libpython3.13-stdlib libreadline8t64 libsqlite3-0 libssl3t64 libstdc++6 libtinfo6 libuuid1 libzstd1 media-types netbase python3.13
python3.13-minimal tzdata zlib1g"
unwanted='^/usr/share/(doc|doc-base|man|info|locale|lintian|bug|base-files|binfmts|applications|icons|pixmaps|python3/runtime)(/|$)
^/usr/share/ca-certificates
^/usr/share/zoneinfo/(right|posix)
^/usr/lib/x86_64-linux-gnu/(gconv|engines-3|ossl-modules|audit)
^/usr/lib/aarch64-linux-gnu/(gconv|engines-3|ossl-modules|audit)
^/usr/lib/python3.13/(ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)(/|$)
^/usr/bin/(pdb|pydoc|pygettext|ld)
^/usr/sbin/
^/etc/(ca-certificates|update-motd.d|default|dpkg|python3.13|profile.d)
^/var/(lib/dpkg|backups|cache|local|mail|opt|spool)
^/(boot|home|media|mnt|opt|proc|srv|sys|dev)(/|$)'

mkdir -p "$root/var/lib/dpkg/status.d"
for package in $packages; do
    installed=$(dpkg-query -W -f '${db:Status-Status} ${binary:Package}' "$package")
    [ "${installed%% *}" = installed ]
    dpkg -s "$package" >"$root/var/lib/dpkg/status.d/$package"
    dpkg -L "$package"
done | sort -u | grep -v -E "$unwanted" >/build/files
sed -n 's|^/\(..*\)|\1|p' /build/files | tar -C / --no-recursion -T - -cf - | tar -C "$root" -xf -

# What the packages' scripts made.
mkdir -p "$root/etc/ssl/certs" "$root/usr/lib/ssl"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
ln -sf /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
cp /etc/ld.so.conf "$root/etc/"
cp -r /etc/ld.so.conf.d "$root/etc/"
ldconfig -r "$root"
rm -rf "$root/var/cache/ldconfig"
ln -sf /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\niot:x:10001:10001:IoT platform:/var/lib/iot:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\niot:x:10001:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/var/lib/iot/ingest" "$root/var/lib/iot/dagster"
mkdir -m 1777 -p "$root/tmp"
chown -R 10001:10001 "$root/var/lib/iot"
