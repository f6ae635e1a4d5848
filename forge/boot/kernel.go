package boot

import (
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
