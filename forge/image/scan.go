package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"gprovision/hw/filesystem"
	"gprovision/model/bootimage"
	"gprovision/model/release"
)

// tree is what is known of a root filesystem after reading its tar once.
type tree struct {
	entries map[string]entry // by name without "./"
	count   int64
	bytes   int64
	files   map[string][]byte // content of the files that tell something
	boot    *os.File          // a copy of boot/norm_boot, without a name
	bootLen int64
	shallow bool // do not look into files
	judge   *filesystem.Judge
}

type entry struct {
	kind byte // tar.TypeReg, ...
	link string
	size int64
	// A name may occur more than once: the last one counts, but all are in the tar.
	seen  int64
	total int64
}

// Files whose content is looked at. All are small.
const (
	passwdFile = "etc/passwd"
	shadowFile = "etc/shadow"
	groupFile  = "etc/group"
	dpkgFile   = "var/lib/dpkg/status"
	bootFile   = "boot/norm_boot"
	// Where etc/os-release leads to in Debian.
	osReleaseFile = "usr/lib/os-release"
)

const maxLooked = 64 << 20

func newTree() *tree {
	return &tree{entries: map[string]entry{}, files: map[string][]byte{}, judge: filesystem.NewJudge()}
}

// close gives the copy of the boot artifact back.
func (t *tree) close() {
	if t.boot != nil {
		t.boot.Close()
		t.boot = nil
	}
}

// add takes one entry of a tar in. It refuses what a restore would refuse: the judge is the code that unpacks.
func (t *tree) add(h *tar.Header, content io.Reader) error {
	if err := t.judge.Entry(h, content); err != nil {
		return fmt.Errorf("entry %q cannot be unpacked on a unit: %w", h.Name, err)
	}
	name, err := filesystem.EntryName(h.Name)
	if err != nil {
		return err
	}
	e := entry{kind: h.Typeflag, link: h.Linkname}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.entries[dir] = entry{kind: tar.TypeDir} // made on the way
		}
	}
	// A later entry replaces an earlier one.
	delete(t.files, name)
	if name == bootFile {
		t.close()
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.kind, e.size = tar.TypeReg, h.Size
		t.bytes += h.Size
		if err := t.look(name, h, content); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	case tar.TypeLink:
		if e.link, err = filesystem.EntryName(h.Linkname); err != nil {
			return err
		}
	}
	old := t.entries[name]
	e.seen, e.total = old.seen+1, old.total+e.size
	t.entries[name] = e
	t.count++
	return nil
}

// forget takes all entries of a name out of the counts: they are left out of the image.
func (t *tree) forget(name string) {
	if e, ok := t.entries[name]; ok {
		t.count -= e.seen
		t.bytes -= e.total
		delete(t.entries, name)
	}
}

// look keeps the content of files that tell something.
func (t *tree) look(name string, h *tar.Header, content io.Reader) error {
	if t.shallow {
		return nil
	}
	switch name {
	case passwdFile, shadowFile, groupFile, dpkgFile, osReleaseFile:
		if h.Size > maxLooked {
			return fmt.Errorf("%d bytes, at most %d", h.Size, maxLooked)
		}
		b, err := io.ReadAll(content)
		t.files[name] = b
		return err
	case bootFile:
		return t.keepBoot(content)
	}
	return nil
}

func (t *tree) keepBoot(content io.Reader) error {
	t.close()
	f, err := os.CreateTemp("", "gprov-norm_boot-")
	if err != nil {
		return err
	}
	t.boot = f
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	t.bootLen, err = io.Copy(f, content)
	return err
}

// resolve follows the symbolic links in the directories of name, as the running system would.
func (t *tree) resolve(name string) (string, error) {
	left := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	var done []string
	for links := 0; len(left) > 0; {
		at := strings.Join(append(slices.Clone(done), left[0]), "/")
		e, ok := t.entries[at]
		if ok && e.kind == tar.TypeSymlink && len(left) > 1 {
			if links++; links > 40 {
				return "", fmt.Errorf("%s: too many symbolic links", name)
			}
			to := e.link
			if !strings.HasPrefix(to, "/") {
				to = "/" + strings.Join(done, "/") + "/" + to
			}
			left = append(strings.Split(strings.Trim(path.Clean(to), "/"), "/"), left[1:]...)
			if left[0] == "" {
				left = left[1:]
			}
			done = nil
			continue
		}
		if ok && e.kind != tar.TypeDir && len(left) > 1 {
			return "", fmt.Errorf("%s: %s is not a directory", name, at)
		}
		done, left = append(done, left[0]), left[1:]
	}
	return strings.Join(done, "/"), nil
}

// file reports whether name is a regular file, or a link that may lead to one.
func (t *tree) file(name string) bool {
	e, ok := t.entries[name]
	return ok && (e.kind == tar.TypeReg || e.kind == tar.TypeLink || e.kind == tar.TypeSymlink)
}

// bootBuild returns the build number of the boot artifact.
func (t *tree) bootBuild() (uint64, error) {
	if t.boot == nil {
		return 0, fmt.Errorf("%s is not there, or not a regular file", bootFile)
	}
	return bootimage.BuildNumber(t.boot, t.bootLen)
}

// packages makes the digest of the installed Debian packages.
func (t *tree) packages() release.Packages {
	status, ok := t.files[dpkgFile]
	if !ok {
		return release.Packages{}
	}
	var lines []string
	for _, d := range installed(status) {
		lines = append(lines, d.key()+"\n")
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return release.Packages{Count: len(lines), SHA256: hex.EncodeToString(sum[:])}
}

// Problem is one thing that an image must have and this one has not, or the other way round.
type Problem struct {
	Path string `json:"path"` // inside the image
	Text string `json:"text"` // what is wrong
	Hint string `json:"hint"` // what to do
}

// shown is a name of an archive as it may be put on a terminal.
func shown(name string) string {
	if quoted := strconv.QuoteToGraphic(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// ContractError says that a root filesystem is not what an image must hold. It lists all problems at once.
type ContractError struct{ Problems []Problem }

func (e *ContractError) Error() string {
	count := "1 problem"
	if n := len(e.Problems); n != 1 {
		count = fmt.Sprintf("%d problems", n)
	}
	lines := []string{"the root filesystem cannot be a release image, " + count + ":"}
	for _, p := range e.Problems {
		lines = append(lines, fmt.Sprintf("  /%s: %s\n    %s", p.Path, p.Text, p.Hint))
	}
	return strings.Join(lines, "\n")
}

// ErrContract is found in each *ContractError.
var ErrContract = errors.New("the root filesystem cannot be a release image")

// Is reports whether target is ErrContract.
func (e *ContractError) Is(target error) bool { return target == ErrContract }

const admin = "admin"

// problems holds the tree against what every image must have.
func (t *tree) problems() []Problem {
	var out []Problem
	say := func(path, text, hint string) { out = append(out, Problem{path, text, hint}) }
	if !t.file("usr/lib/systemd/systemd") {
		say("usr/lib/systemd/systemd", "it is missing: systemd is what the unit starts", "install the package systemd; /lib must be a link to usr/lib")
	}
	if !t.file("usr/lib/systemd/systemd-networkd") {
		say("usr/lib/systemd/systemd-networkd", "it is missing: systemd-networkd manages the unit's network", "install the package systemd")
	}
	if t.boot == nil {
		say(bootFile, "the boot artifact is missing, or not a regular file", "let it be made with --policy FILE and BUILD_NUMBER set, or make it with 'gprov boot build' and put it in with --add FILE:/"+bootFile)
	} else if _, err := t.bootBuild(); err != nil {
		say(bootFile, "it is not a boot artifact: "+err.Error(), "make it with 'gprov boot build'")
	}
	for _, dir := range []string{"etc", "boot", "dev", "etc/systemd"} {
		if e, ok := t.entries[dir]; !ok || e.kind != tar.TypeDir {
			say(dir, "the directory is missing", "use a complete root filesystem")
		}
	}
	t.accounts(say)
	for name := range t.entries {
		if ok, _ := path.Match("etc/ssh/ssh_host_*_key", name); ok {
			say(name, "an SSH host key, which all units would share", "delete it; let the units make their own at the first start (ssh-keygen -A)")
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// accounts checks that admin can log in once a unit has given it a password, and that nobody else can.
func (t *tree) accounts(say func(path, text, hint string)) {
	passwd, ok := t.files[passwdFile]
	if !ok {
		say(passwdFile, "it is missing, or not a regular file", "use a complete root filesystem")
		return
	}
	shadow, ok := t.files[shadowFile]
	if !ok {
		say(shadowFile, "it is missing, or not a regular file", "use shadow passwords (pwconv)")
		return
	}
	homes := map[string]string{}
	seen := false
	for _, f := range records(passwd, 7) {
		name, password, home, shell := f[0], f[1], f[5], f[6]
		homes[name] = strings.Trim(path.Clean("/"+home), "/")
		if name == admin {
			seen = true
			if base := path.Base(shell); base == "nologin" || base == "false" {
				say(passwdFile, "account admin has the shell "+shell, "give it a login shell: usermod -s /bin/bash admin")
			}
		}
		if password != "x" && !locked(password) {
			say(passwdFile, "account "+name+" has its password here, where everybody can read it, or none at all", "run pwconv, and lock it: passwd -l "+name)
		}
	}
	if !seen {
		say(passwdFile, "there is no account admin", "add it: useradd -m -s /bin/bash admin")
	}
	if !slices.ContainsFunc(records(t.files[groupFile], 4), func(f []string) bool { return f[0] == admin }) {
		say(groupFile, "there is no group admin", "add it: groupadd admin")
	}
	inShadow := false
	for _, f := range records(shadow, 2) {
		name, password := f[0], f[1]
		switch {
		case name == admin && !locked(password):
			say(shadowFile, "account admin has a password in the image, which all units would share", "lock it: passwd -l admin; each unit sets its own")
		case name != admin && password == "":
			say(shadowFile, "account "+name+" may log in without a password", "lock it: passwd -l "+name)
		case name != admin && !locked(password):
			say(shadowFile, "account "+name+" has a password; admin alone may log in", "lock it: passwd -l "+name)
		}
		inShadow = inShadow || name == admin
	}
	if seen && !inShadow {
		say(shadowFile, "there is no line for admin, so a unit cannot set its password", "run pwconv")
	}
	for name, home := range homes {
		keys := strings.TrimPrefix(path.Join(home, ".ssh/authorized_keys"), "/")
		if e, ok := t.entries[keys]; ok && name != admin && home != homes[admin] && (e.kind != tar.TypeReg || e.size > 0) {
			say(keys, "account "+name+" may log in with an SSH key; admin alone may log in", "delete the file")
		}
	}
}

// locked reports whether no password fits.
func locked(field string) bool { return strings.HasPrefix(field, "!") || strings.HasPrefix(field, "*") }

// records splits a file like /etc/passwd. Lines with too few fields are left out.
func records(b []byte, fields int) [][]string {
	var out [][]string
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if f := strings.Split(s.Text(), ":"); len(f) >= fields && f[0] != "" {
			out = append(out, f)
		}
	}
	return out
}
