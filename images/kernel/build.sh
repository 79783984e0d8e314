#!/bin/bash
# Builds one of the project's two kernels from Debian's linux-source-6.12 package.
#
#   build.sh enclave|parent <output-dir>
#
# Leaves in <output-dir>:
#   bzImage   the compressed kernel
#   vmlinux   the same kernel as an ELF file without symbols, for loaders that take one
#   config    the complete configuration, whose third line names the kernel's version
#
# Needs the Debian packages linux-source-6.12, build-essential, bc, bison, flex, libelf-dev, lz4 and xz-utils, 2 GB below
# <output-dir> while it runs, and five to ten minutes on two cores. Set KEEP_BUILD=1 to keep the build tree.
#
# Compression, as the fragments choose it: LZ4, because each boot pays for hashing and for decompressing. Sizes of the
# enclave kernel, 16.4 MB as ELF, and instructions from its entry to the decompressed kernel, counted in QEMU with -icount
# on a version 10 % larger (now 29 million for LZ4):
#   lz4 3.6 MB, 32 million   gzip 3.1 MB, 165 million   zstd 2.7 MB, 185 million   xz 2.5 MB, not tried
# The smaller files save 1.1 MB of SHA-384 at most. The ELF file needs no decompression, but 4.5 times the hashing.
#
# The same fragment, this file, the same source package and the same compiler give the same bytes: the kernel's build
# stamp is fixed and no path is compiled in. It always builds: whoever calls it decides when to build anew.
set -euo pipefail

source_tar=/usr/src/linux-source-6.12.tar.xz

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# Every option that the fragment names must be in the complete configuration as named: Kconfig drops an option whose
# dependencies are missing without a word.
check_options() {
    local fragment=$1 config=$2 line option dropped=()
    while IFS= read -r line; do
        case $line in
        CONFIG_*=*)
            grep -qxF -- "$line" "$config" || dropped+=("$line")
            ;;
        "# CONFIG_"*" is not set")
            option=${line#\# }
            option=${option% is not set}
            ! grep -q "^$option=" "$config" || dropped+=("$line")
            ;;
        esac
    done <"$fragment"
    [ ${#dropped[@]} -eq 0 ] || fail "options of $fragment that did not stick: ${dropped[*]}"
}

[ $# -eq 2 ] || fail "usage: build.sh enclave|parent <output-dir>"
kind=$1
case $kind in
enclave | parent) ;;
*) fail "unknown kernel '$kind': enclave or parent" ;;
esac
fragment=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$kind.config
[ -r "$source_tar" ] || fail "$source_tar is missing: apt install linux-source-6.12"
mkdir -p "$2"
output=$(cd "$2" && pwd)

tree=$output/build
rm -rf "$tree"
mkdir "$tree"
[ -n "${KEEP_BUILD:-}" ] || trap 'rm -rf "$tree"' EXIT

echo "unpacking $source_tar"
# No part of these is read by the build, and they are a third of the files.
tar --extract --xz --file "$source_tar" --directory "$tree" --strip-components 1 \
    --exclude 'linux-source-*/Documentation/*/*' --exclude 'linux-source-*/arch/*/boot/dts' \
    --exclude 'linux-source-*/tools/testing' --exclude 'linux-source-*/drivers/gpu/drm/amd/include'

export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=enclaved KBUILD_BUILD_HOST=enclaved KBUILD_BUILD_VERSION=1
export LC_ALL=C TZ=UTC

echo "configuring the $kind kernel"
make --directory "$tree" --silent KCONFIG_ALLCONFIG="$fragment" allnoconfig
check_options "$fragment" "$tree/.config"

echo "compiling the $kind kernel with $(nproc) jobs"
make --directory "$tree" --silent --jobs "$(nproc)" bzImage

install -m 644 "$tree/arch/x86/boot/bzImage" "$output/bzImage"
install -m 644 "$tree/.config" "$output/config"
strip --strip-all -o "$output/vmlinux" "$tree/vmlinux"
chmod 644 "$output/vmlinux"
ls -l "$output/bzImage" "$output/vmlinux"
