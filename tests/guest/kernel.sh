# Debian's cloud kernel, out of its package and without installing it. Sourced by the guests' build scripts; expects
# fail(). A kernel package that is already in HCI_KERNEL_DEB_DIR is used instead of a download.

# The package the meta package points to, e.g. linux-image-6.1.0-56-cloud-amd64.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

# kernel_unpack PACKAGE FOLDER: the package's files are in FOLDER afterwards.
kernel_unpack() {
    local package=$1 folder=$2 deb
    rm -rf "$folder"
    mkdir -p "$folder"
    deb=$(ls "${HCI_KERNEL_DEB_DIR:-/nonexistent}/${package}"_*.deb 2> /dev/null | tail -n 1 || true)
    if [ -z "$deb" ]; then
        (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
            fail "cannot download $package; run apt-get update and check the network"
        deb=$(ls "$folder/${package}"_*.deb)
    fi
    dpkg-deb -x "$deb" "$folder"
}
