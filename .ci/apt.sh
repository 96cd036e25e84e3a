#!/usr/bin/env bash
# The servers and tools that the tests of genseg_monai/pacs talk to, and the browser that a report is looked at in:
# installed if missing, never started as services.
# Without root or apt nothing happens; the tests then skip, visibly, or fail where CI=true.
set -euo pipefail

missing=()
for pair in Orthanc:orthanc dciodvfy:dicom3tools dcm2niix:dcm2niix storescu:dcmtk openssl:openssl chromium:chromium; do
    # not `command -v`: pynetdicom puts programs of dcmtk's names first in PATH
    found=0
    for folder in /usr/sbin /usr/bin; do
        [ -x "$folder/${pair%%:*}" ] && found=1
    done
    [ "$found" = 1 ] || missing+=("${pair##*:}")
done
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "apt.sh: not installed, and no root or apt-get here: ${missing[*]}" >&2
    exit 0
fi

# keep Orthanc's service from starting; a policy that is there already stays as it is
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
