package boot

import (
	"fmt"
	"strings"
)

// chooseKernel returns the release of the kernel to use: want if that is given, else the newest in /boot.
func chooseKernel(root *rootFS, want string) (release string, err error) {
	if want != "" {
		if _, err := root.find("linux-image-"+want, "boot/vmlinuz-"+want); err != nil {
			return "", err
		}
		return want, nil
	}
	for _, n := range root.list("boot") {
		if r, ok := strings.CutPrefix(n, "vmlinuz-"); ok && (release == "" || older(release, r)) {
			release = r
		}
	}
	if release == "" {
		return "", &MissingError{Path: "boot/vmlinuz-*", Package: "linux-image-amd64"}
	}
	return release, nil
}

// older says whether release a is older than b: numbers inside the text compare as numbers.
func older(a, b string) bool {
	for a != "" && b != "" {
		x, y := run(a), run(b)
		a, b = a[len(x):], b[len(y):]
		if x == y {
			continue
		}
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return len(x) < len(y)
			}
			if x == y {
				continue
			}
		}
		return x < y
	}
	return b != ""
}

// run returns the digits, or the other characters, that s starts with.
func run(s string) string {
	i := 1
	for i < len(s) && isDigit(s[i]) == isDigit(s[0]) {
		i++
	}
	return s[:i]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// Compression is how an initramfs is compressed.
type Compression string

// The kinds of compression that a built artifact may have.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
)

// chooseCompression reads the kernel's configuration: zstd where the kernel can unpack it, else gzip.
func chooseCompression(root *rootFS, release string) (Compression, error) {
	config, err := root.read("boot/config-"+release, "")
	if err != nil {
		return Gzip, nil // every kernel that unpacks anything unpacks gzip
	}
	set := map[string]bool{}
	for _, line := range strings.Split(string(config), "\n") {
		set[line] = true
	}
	if !set["CONFIG_BLK_DEV_INITRD=y"] {
		return "", fmt.Errorf("kernel %s cannot have an initramfs: CONFIG_BLK_DEV_INITRD is not set", release)
	}
	if set["CONFIG_RD_ZSTD=y"] {
		return Zstd, nil
	}
	return Gzip, nil
}
