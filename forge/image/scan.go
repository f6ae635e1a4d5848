package image

import (
	"archive/tar"
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

	"gprovision/forge/boot"
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
	shallow bool // do not look into files, but the boot artifact if that is wanted
	looks   bool // keep the boot artifact, if shallow
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
	if t.shallow && t.looks && name == bootFile {
		return t.keepBoot(content)
	}
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

// follow is resolve, and follows a link at the end too. What it returns need not be there.
func (t *tree) follow(name string) (string, error) {
	for range 40 {
		at, err := t.resolve(name)
		if err != nil {
			return "", err
		}
		e, ok := t.entries[at]
		if !ok || e.kind != tar.TypeSymlink {
			return at, nil
		}
		if name = e.link; !strings.HasPrefix(name, "/") {
			name = path.Dir("/"+at) + "/" + name
		}
	}
	return "", fmt.Errorf("%s: too many symbolic links", name)
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

// name gives the image that is built the prefix of the boot artifact's names, if it has none, and holds the one that it has against them.
func (t *tree) name(o *Options) *Problem {
	in, err := t.inspect()
	if o.Name.Prefix == "" {
		o.Name.Prefix = in.NamesOr(o.Names).ImagePrefix
	}
	if err == nil {
		err = in.Judge(o.Name.Prefix, o.Names)
	}
	var wrong *boot.PrefixError
	var names *boot.NamesError
	switch {
	case errors.As(err, &wrong):
		return &Problem{bootFile, wrong.Error(), wrong.Hint()}
	case errors.As(err, &names):
		return &Problem{bootFile, names.Error(), "make it again with 'gprov boot build'"}
	}
	return nil
}

// inspect looks into the boot artifact. One that cannot be read whole is judged elsewhere, and says nothing.
func (t *tree) inspect() (boot.Inspection, error) {
	if t.boot == nil {
		return boot.Inspection{}, nil
	}
	return boot.Inspect(t.boot, t.bootLen)
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

// warnings are what may be meant, and most often is not: what building a root filesystem in a container leaves behind.
func (t *tree) warnings() []Problem {
	var out []Problem
	say := func(path, text, hint string) { out = append(out, Problem{path, text, hint}) }
	for _, name := range []string{"run/.containerenv", "run/systemd/container"} {
		if t.present(name) {
			say(name, "it says that the system runs in a container", "delete it; containers leave it")
		}
	}
	if e, ok := t.entries["etc/resolv.conf"]; ok && e.kind == tar.TypeReg && e.size == 0 {
		say("etc/resolv.conf", "it is an empty file, so that no name is resolved and systemd makes no link in its place", "delete it; 'docker export' leaves it")
	}
	if t.present("usr/sbin/policy-rc.d") {
		say("usr/sbin/policy-rc.d", "it forbids packages to start their services, when they are installed on a unit", "delete it; images of containers have it")
	}
	if f, ok := fields(t.files[shadowFile], admin); ok && number(f, 2) >= 0 && number(f, 4) >= 0 && number(f, 4) < 9999 && number(f, 6) < 0 {
		say(shadowFile, fmt.Sprintf("account admin must change its password %d days after day %d since 1970, whenever a unit has set it", number(f, 4), number(f, 2)), "chage -M -1 admin")
	}
	return out
}

// present reports whether a name leads to something, links followed. A name in a directory that is a link counts too.
func (t *tree) present(name string) bool {
	at, err := t.follow(name)
	if err != nil {
		return false
	}
	_, ok := t.entries[at]
	return ok
}

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
	if t.present("etc/nologin") {
		say("etc/nologin", "nobody but root may log in while it is there", "delete it")
	}
	// systemd-detect-virt(1): systemd in a system with it takes itself for one in a container, and skips what a machine needs.
	if t.present(".dockerenv") {
		say(".dockerenv", "systemd on the unit would take itself for one in a container, and start no service that machines need", "delete it; 'docker export' leaves it")
	}
	for name := range t.entries {
		if ok, _ := path.Match("etc/ssh/ssh_host_*_key", name); ok {
			say(name, "an SSH host key, which all units would share", "delete it; let the units make their own at the first start (ssh-keygen -A)")
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return out
}
