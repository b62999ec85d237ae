# Puts /opt/iot-platform into the image's root: program.sh FOLDER COMMAND...
# Of bin/ only Python and the commands named stay; tests, the web UI's source maps and debugging symbols go, what only compilers and editors
# read, and the half of the Kubernetes client that is for asyncio.
set -eu
root=$1
shift
for file in /opt/iot-platform/bin/*; do
    name=${file##*/}
    case " python python3 python3.13 $* " in *" $name "*) ;; *) rm "$file" ;; esac
done
find /opt/iot-platform -type d \( -name tests -o -name test_fixtures \) -prune -exec rm -r {} +
find /opt/iot-platform \( -name '*.js.map' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' \) -delete
rm -rf /opt/iot-platform/lib/python3.13/site-packages/kubernetes/aio
# Not what wheels bring in *.libs: their names and paths were patched in, which strip may break.
find /opt/iot-platform -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} +
mkdir -p "$root/opt"
cp -a /opt/iot-platform "$root/opt/"

# Bytecode, because the root is read-only at run time and each process would compile anew. Valid by itself, because the files' times are
# set when the image is written; by one process with one seed, because the image has to be the same each time.
PYTHONHASHSEED=0 python3.13 -m compileall -q -j 1 --invalidation-mode unchecked-hash -s "$root" "$root/usr/lib/python3.13" "$root/opt/iot-platform/lib"

# 450 MB is the limit: of two libraries that are large and not ours, bytecode without docstrings is enough. Their lines keep their numbers.
for library in kubernetes/client sqlalchemy; do
    folder=$root/opt/iot-platform/lib/python3.13/site-packages/$library
    [ -d "$folder" ] || continue
    find "$folder" -name __pycache__ -prune -exec rm -r {} +
    PYTHONHASHSEED=0 python3.13 -m compileall -q -j 1 -b -o 2 --invalidation-mode unchecked-hash -s "$root" "$folder"
    find "$folder" -name '*.py' -delete
done

# Each library that a file in here asks for is in here.
loader=$(echo "$root"/lib64/ld-linux*)
missing=$(find "$root/usr/lib" "$root/usr/bin" "$root/opt" -type f \( -name '*.so' -o -name '*.so.*' -o -name python3.13 \) | while read -r file; do
    chroot "$root" "/lib64/${loader##*/}" --list "${file#"$root"}" 2>&1 | sed -n "s|^|${file#"$root"}: |; /not found/p"
done)
if [ -n "$missing" ]; then
    echo "$missing" >&2
    exit 1
fi

# Times are part of what a layer's digest is made of.
find "$root" -exec touch --no-dereference --date=@0 {} +
