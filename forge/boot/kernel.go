package boot

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// kernelFile is a kernel of a root filesystem.
type kernelFile struct {
	release string
	image   string // where it lies
	config  string // where its configuration lies; empty: nowhere
}

// KernelError says why none of the kernels of a root filesystem is used.
type KernelError struct {
	// Text says what is wrong.
	Text string
	// Have are the releases of the kernels that could be used.
	Have []string
	// Install is the Debian package that has one; empty: not known.
	Install string
}

func (e *KernelError) Error() string { return e.Text }

// Unwrap makes errors.Is with fs.ErrNotExist hold.
func (e *KernelError) Unwrap() error { return fs.ErrNotExist }

// Hint says what to do next.
func (e *KernelError) Hint() string {
	install := fmt.Sprintf("install %s into the root filesystem", cmp.Or(e.Install, "a plain kernel"))
	if len(e.Have) > 0 {
		return fmt.Sprintf("choose one with --kernel (%s), or %s", strings.Join(e.Have, ", "), install)
	}
	return install
}

// The places of a kernel RELEASE: as Debian has it, and as Fedora and bootc have
// it, beside its modules.
const (
	bootKernels   = "boot/vmlinuz-"
	moduleKernels = "lib/modules/"
)

// findKernel returns the kernel of a release, false if there is none.
func findKernel(root *rootFS, release string) (kernelFile, bool) {
	k := kernelFile{release: release}
	var err error
	if k.image, err = root.find("", bootKernels+release, moduleKernels+release+"/vmlinuz"); err != nil {
		return kernelFile{}, false
	}
	if k.config, err = root.find("", "boot/config-"+release, moduleKernels+release+"/config", moduleKernels+release+"/build/.config"); err != nil {
		k.config = ""
	}
	return k, true
}

// chooseKernel returns the kernel to use: want if that is given, else the newest of those that have modules. One for a purpose of its own
// (a cloud's, real-time, debugging) or a backup comes after all others, however new it is; a choice between such ones is for a person.
func chooseKernel(root *rootFS, want string) (kernelFile, error) {
	var usable []kernelFile
	var releases, bare []string
	seen := map[string]bool{}
	consider := func(release string) {
		if k, ok := findKernel(root, release); ok && !seen[release] {
			seen[release] = true
			if _, err := root.find("", moduleKernels+release+"/modules.dep"); err != nil {
				bare = append(bare, release)
				return
			}
			usable, releases = append(usable, k), append(releases, release)
		}
	}
	for _, n := range root.list("boot") {
		if r, ok := strings.CutPrefix(n, path.Base(bootKernels)); ok {
			consider(r)
		}
	}
	for _, r := range root.list(moduleKernels) {
		consider(r)
	}
	slices.SortFunc(usable, func(a, b kernelFile) int {
		switch {
		case rank(a.release) != rank(b.release):
			return cmp.Compare(rank(a.release), rank(b.release))
		case older(a.release, b.release):
			return 1
		}
		return -1
	})
	slices.Sort(releases)
	switch {
	case want != "" && slices.Contains(bare, want):
		return kernelFile{}, &KernelError{Text: fmt.Sprintf("the kernel %s of the root filesystem has no modules: there is no /%s%s/modules.dep", want, moduleKernels, want), Have: releases, Install: "linux-image-" + want}
	case want != "" && !seen[want]:
		return kernelFile{}, &KernelError{Text: fmt.Sprintf("the root filesystem has no kernel %s: neither /%s%s nor /%s%s/vmlinuz is there", want, bootKernels, want, moduleKernels, want), Have: releases, Install: "linux-image-" + want}
	case want != "":
		return usable[slices.IndexFunc(usable, func(k kernelFile) bool { return k.release == want })], nil
	case len(usable) == 0 && len(bare) > 0:
		return kernelFile{}, &KernelError{Text: fmt.Sprintf("no kernel of the root filesystem has modules: there is no /%sRELEASE/modules.dep for %s", moduleKernels, strings.Join(bare, ", ")), Install: "linux-image-" + bare[0]}
	case len(usable) == 0:
		return kernelFile{}, &KernelError{Text: fmt.Sprintf("the root filesystem has no kernel: neither /%s* nor /%s*/vmlinuz is there", bootKernels, moduleKernels), Install: "linux-image-amd64"}
	}
	best := usable[0]
	if rank(best.release) == plainKernel {
		return best, nil
	}
	for _, k := range usable[1:] {
		if flavour(k.release) != flavour(best.release) {
			return kernelFile{}, &KernelError{Text: fmt.Sprintf("the root filesystem has kernels for purposes of their own, and no plain one: %s", strings.Join(releases, ", ")), Have: releases}
		}
	}
	return best, nil
}

// Ranks of kernels, the better one first.
const (
	plainKernel = iota
	specialKernel
	backupKernel
)

var releaseWord = regexp.MustCompile(`[A-Za-z]+`)

// rank says what kind of kernel a release names.
func rank(release string) int {
	worst := plainKernel
	for _, w := range releaseWord.FindAllString(strings.ToLower(release), -1) {
		switch w {
		case "old", "bak", "backup", "orig", "save", "saved", "rpmsave", "rpmnew", "tmp", "new", "rescue", "kdump":
			worst = backupKernel
		case "cloud", "rt", "realtime", "debug", "dbg", "kasan", "virt", "kvm", "aws", "azure", "gcp", "gke", "oracle", "ibm", "lowlatency", "minimal", "trace", "up":
			worst = max(worst, specialKernel)
		}
	}
	return worst
}

// flavour is what is left of a release without its numbers.
func flavour(release string) string { return strings.Join(releaseWord.FindAllString(release, -1), "-") }

var candidate = regexp.MustCompile(`[-.~_]?rc([0-9]+)`)

// older reports whether release a is older than b: numbers inside the text compare as numbers, and a release candidate comes before what it
// is a candidate for.
func older(a, b string) bool {
	va, ra := version(a)
	vb, rb := version(b)
	for i := range max(len(va), len(vb)) {
		x, y := "0", "0"
		if i < len(va) {
			x = va[i]
		}
		if i < len(vb) {
			y = vb[i]
		}
		if c := number(x, y); c != 0 {
			return c < 0
		}
	}
	ca, cb := candidate.FindStringSubmatch(ra), candidate.FindStringSubmatch(rb)
	switch {
	case ca != nil && cb != nil && number(ca[1], cb[1]) != 0:
		return number(ca[1], cb[1]) < 0
	case (ca != nil) != (cb != nil):
		return ca != nil
	}
	return natural(ra, rb)
}

// version divides a release into the numbers with dots that it begins with, and the rest.
func version(release string) (numbers []string, rest string) {
	at := 0
	for at < len(release) && (isDigit(release[at]) || release[at] == '.' && at+1 < len(release) && isDigit(release[at+1])) {
		at++
	}
	if at == 0 {
		return nil, release
	}
	return strings.Split(release[:at], "."), release[at:]
}

// number compares two numbers of any length.
func number(x, y string) int {
	x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
}

// natural reports whether a comes before b, where numbers inside the text compare as numbers.
func natural(a, b string) bool {
	for a != "" && b != "" {
		x, y := run(a), run(b)
		a, b = a[len(x):], b[len(y):]
		if x == y {
			continue
		}
		if isDigit(x[0]) && isDigit(y[0]) {
			if c := number(x, y); c != 0 {
				return c < 0
			}
			continue
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
