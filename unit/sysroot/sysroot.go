// Package sysroot edits a system that a restore has just written and mounted: fstab, host name, hosts, machine-id,
// time zone, serial number, facts, network defaults, the administrator's password, and the mark.
//
// The content of the image is not trusted. Its links are followed as the running system follows them: inside its
// root, and never out of it. Files are replaced atomically, where their content lies. The mark and the disktag lie in
// the root itself and are no links.
//
// The package mounts nothing and starts no programs. It looks up users and groups in the image's own files. Each edit
// may be repeated.
package sysroot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gprovision/hw/durable"
	"gprovision/unit/state"
)

// maxFile is the size limit for a file of the image that is read here, in bytes.
const maxFile = 1 << 20

// System is a mounted system. Close it before unmounting.
type System struct {
	root *os.Root // for files in the root itself
	top  *os.File // the same directory (links.go)
}

// Open opens the system mounted at dir.
func Open(dir string) (*System, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open system: %w", err)
	}
	top, err := r.Open(".")
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("open system: %w", err)
	}
	return &System{root: r, top: top}, nil
}

// Close closes the system, so that it can be unmounted.
func (s *System) Close() error { return errors.Join(s.top.Close(), s.root.Close()) }

// Config is everything that tells a restored system about its unit.
type Config struct {
	// HostPrefix is the start of the host name (Hostify).
	HostPrefix string
	// Serial is the unit's serial number.
	Serial string
	// ConfDir is the directory of facts, such as /etc/provisioning.
	ConfDir string
	// Secret are at least 16 random bytes that only this unit has, such as the seed of its key. The machine-id is
	// derived from it.
	Secret []byte
	// Admin is the account whose password is set. If it is empty, it is the constant Admin. Hash is the password hash
	// in the form of crypt(3).
	Admin, Hash string
	// Facts is the content of platform_facts.json. If it is nil, there is no such file.
	Facts []byte
	// Names is the content of names.json. If it is nil, there is no such file.
	Names []byte
	// Release names the disktag: it is the release without ".upd".
	Release string
	// Mounts is the content of fstab.
	Mounts []Mount
	// Array is the content of mdadm.conf. It is empty if the system is not on an array.
	Array string
	// Network says how to name the ports.
	Network Network
	// Preserved are the unit's own network files (UnpackNetwork). If there are none, the image's or the defaults are
	// used.
	Preserved []File
}

// NamesFile is the file with the unit's names in a restored system's directory of facts. Its format is that of
// model/naming.
const NamesFile = "names.json"

// Configure makes and logs all edits but the mark. It stops at the first error.
func Configure(dir string, log *slog.Logger, c Config) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	id, err := MachineID(c.Secret)
	if err != nil {
		return err
	}
	admin := c.Admin
	if admin == "" {
		admin = Admin
	}
	host := Hostify(c.HostPrefix, c.Serial)
	for _, e := range []struct {
		what string
		do   func() error
	}{
		{"fstab", func() error { return s.SetMounts(c.Mounts) }},
		{"array", func() error { return s.SetArray(c.Array) }},
		{"host name", func() error { return s.SetHostname(host) }},
		{"machine-id", func() error { return s.SetMachineID(id) }},
		{"time zone", func() error { return s.SetTimezone("Etc/UTC") }},
		{"serial", func() error { return s.SetSerial(c.ConfDir, c.Serial) }},
		{"facts", func() error {
			if c.Facts == nil {
				return nil
			}
			return s.SetFacts(c.ConfDir, c.Facts)
		}},
		{"names", func() error {
			if c.Names == nil {
				return nil
			}
			return s.writeIn(c.ConfDir, NamesFile, c.Names)
		}},
		{"network", func() error {
			used, err := s.SetNetwork(c.ConfDir, c.Network, c.Preserved)
			if err == nil {
				log.Info("network configuration", "used", string(used), "defaults", defaultsDir)
			}
			return err
		}},
		{"journal directory", func() error { return s.MakeJournalDir() }},
		{"disktag", func() error { return s.SetDisktag(c.Release) }},
		{"password", func() error { return s.SetPassword(admin, c.Hash) }},
	} {
		if err := e.do(); err != nil {
			return fmt.Errorf("configure %s: %w", e.what, err)
		}
		log.Debug("configured", "what", e.what)
	}
	log.Info("system configured", "host", host, "release", c.Release)
	return nil
}

// Hostify makes a host name from a serial number. The serial follows the prefix in lower case. Everything but a-z and
// 0-9 becomes a dash, and a dash at the end becomes 0. The name has at most 63 characters.
func Hostify(prefix, serial string) string {
	name := prefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, serial)
	if len(name) > 63 {
		name = name[:63]
	}
	if n, ok := strings.CutSuffix(name, "-"); ok {
		name = n + "0"
	}
	return name
}

// MachineID derives a machine-id from a secret of the unit. It is the same after each restore, and nobody can guess
// it from the serial number. It has 32 hexadecimal digits (machine-id(5)) with the bits of a random UUID set.
func MachineID(secret []byte) (string, error) {
	if len(secret) < 16 {
		return "", fmt.Errorf("machine-id: secret has %d bytes, want at least 16", len(secret))
	}
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("gprovision machine-id 1"))
	b := m.Sum(nil)[:16]
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return hex.EncodeToString(b), nil
}

var (
	hostForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	idForm    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	zoneForm  = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`)
	plainForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	userForm  = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)
)

func isPlain(name string) bool { return len(name) <= 201 && plainForm.MatchString(name) }

// SetHostname writes /etc/hostname and puts the name beside localhost in /etc/hosts.
func (s *System) SetHostname(name string) error {
	if len(name) > 63 || !hostForm.MatchString(name) {
		return fmt.Errorf("host name %q has a wrong form", name)
	}
	old, err := s.read("etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	was, err := s.read("etc/hostname")
	if err != nil {
		was = nil
	}
	if err := s.write("etc/hosts", hosts(old, name, strings.Fields(string(was))...), 0o644); err != nil {
		return err
	}
	return s.write("etc/hostname", []byte(name+"\n"), 0o644)
}

// hosts puts a name beside localhost. It removes the names of the machine on which the image was made, was, and the lines
// for 127.0.1.1, which hold such names. Everything else stays: the other names and the comment of the localhost line, and
// all other lines.
func hosts(old []byte, name string, was ...string) []byte {
	ours := "127.0.0.1   " + name + " localhost"
	var lines []string
	found := false
	for _, l := range strings.Split(strings.TrimRight(strings.ReplaceAll(string(old), "\r\n", "\n"), "\n"), "\n") {
		text, comment, commented := strings.Cut(l, "#")
		f := strings.Fields(text)
		if len(f) > 1 && f[0] == "127.0.1.1" {
			continue
		}
		if len(f) > 1 && f[0] == "127.0.0.1" && slices.Contains(f[1:], "localhost") && !found {
			found = true
			l = ours
			for _, n := range f[1:] {
				if n != name && n != "localhost" && !slices.ContainsFunc(was, func(w string) bool { return n == w || strings.HasPrefix(n, w+".") }) {
					l += " " + n
				}
			}
			if commented {
				l += " #" + comment
			}
		}
		lines = append(lines, l)
	}
	if !found {
		lines = append(lines, ours)
	}
	return []byte(strings.TrimLeft(strings.Join(lines, "\n"), "\n") + "\n")
}

// SetMachineID writes /etc/machine-id. It removes the copy that D-Bus made when the image was built.
func (s *System) SetMachineID(id string) error {
	if !idForm.MatchString(id) {
		return errors.New("machine-id is not 32 hexadecimal digits")
	}
	if err := s.write("etc/machine-id", []byte(id+"\n"), 0o444); err != nil {
		return err
	}
	dir, err := s.openDir("var/lib/dbus")
	if err != nil {
		return nil // the image has no D-Bus
	}
	defer dir.Close()
	if st, err := dir.Lstat("machine-id"); err == nil && st.Mode().IsRegular() {
		return durable.RemoveIn(dir, "machine-id")
	}
	return nil
}

// SetTimezone makes /etc/localtime a link to a file of the image's zoneinfo. It also corrects /etc/timezone if the
// image has one.
func (s *System) SetTimezone(zone string) error {
	if !zoneForm.MatchString(zone) {
		return fmt.Errorf("time zone %q has a wrong form", zone)
	}
	if _, err := s.read("etc/timezone"); err == nil {
		if err := s.write("etc/timezone", []byte(zone+"\n"), 0o644); err != nil {
			return err
		}
	}
	return s.link("etc/localtime", "/usr/share/zoneinfo/"+zone)
}

// SetArray writes the file that describes the array to mdadm in the running system. It does nothing if conf is empty.
func (s *System) SetArray(conf string) error {
	if conf == "" {
		return nil
	}
	return s.write("etc/mdadm/mdadm.conf", []byte(conf), 0o644)
}

// SetSerial writes the unit's serial number to the file serial in the directory of facts. There is no newline.
func (s *System) SetSerial(confDir, serial string) error {
	if serial == "" {
		return errors.New("the unit has no serial number")
	}
	return s.writeIn(confDir, "serial", []byte(serial))
}

// SetFacts writes platform_facts.json in the directory of facts.
func (s *System) SetFacts(confDir string, facts []byte) error {
	return s.writeIn(confDir, "platform_facts.json", facts)
}

// SetDisktag makes the empty file RELEASE.disktag in the root of the system. It removes all other disktags.
func (s *System) SetDisktag(release string) error {
	release = strings.TrimSuffix(release, ".upd")
	if !isPlain(release) {
		return fmt.Errorf("name of the release %q has a wrong form", release)
	}
	want := release + ".disktag"
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".disktag") && n != want {
			if err := durable.RemoveIn(s.root, n); err != nil {
				return err
			}
		}
	}
	return durable.WriteIn(s.root, want, nil, durable.Owner{Mode: 0o444})
}

// MakeJournalDir makes /var/log/journal, so that the system's journal survives a boot. Its mode is 2755, its owner
// root, its group the image's systemd-journal. If the image has no such group, the mode is 755.
func (s *System) MakeJournalDir() error {
	const dir = "var/log/journal"
	gid, err := s.group("systemd-journal")
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return err
	}
	mode := fs.FileMode(0o755)
	if err == nil {
		mode |= fs.ModeSetgid
	}
	d, err := s.makeDir(dir, 0o755)
	if err != nil {
		return err
	}
	defer d.Close()
	if os.Geteuid() == 0 {
		if err := d.Lchown(".", 0, gid); err != nil {
			return err
		}
	}
	// This follows the change of group, because chown may clear the bit.
	return d.Chmod(".", mode)
}

// SetMark makes everything written to the system durable, and then writes the mark into its root. A restore does this
// last.
func (s *System) SetMark(name string, m state.Mark) error {
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	if !isPlain(name) {
		return fmt.Errorf("name of the mark %q has a wrong form", name)
	}
	if err := s.Sync(); err != nil {
		return err
	}
	return durable.WriteIn(s.root, name, b, durable.Owner{Mode: 0o444})
}

// ReadMark returns the mark. The error is fs.ErrNotExist if the system is not complete.
func (s *System) ReadMark(name string) (state.Mark, error) {
	b, err := state.ReadFile(s.root, name, state.MaxMark)
	if err != nil {
		return state.Mark{}, err
	}
	return state.ParseMark(b)
}

// ClearMark removes the mark durably. A missing mark is no error.
func (s *System) ClearMark(name string) error { return durable.RemoveIn(s.root, name) }

// SetMark is System.SetMark for the system mounted at dir.
func SetMark(dir, name string, m state.Mark) error {
	return withSystem(dir, func(s *System) error { return s.SetMark(name, m) })
}

// ClearMark is System.ClearMark for the system mounted at dir.
func ClearMark(dir, name string) error {
	return withSystem(dir, func(s *System) error { return s.ClearMark(name) })
}

func withSystem(dir string, f func(*System) error) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(s)
}

// Sync writes the whole filesystem to its device. It returns the errors of all writes since the mount that nobody has
// seen yet (syncfs(2), Linux 5.8 and later).
func (s *System) Sync() error {
	d, err := s.root.Open(".")
	if err != nil {
		return fmt.Errorf("sync filesystem: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync filesystem: %w", err)
	}
	return nil
}

// write replaces a file, and makes its directory if needed. An existing regular file keeps its owner and mode.
func (s *System) write(name string, b []byte, mode fs.FileMode) error {
	return s.replace(name, func(dir *os.Root, base string) error {
		o := durable.Owner{Mode: mode}
		if st, err := dir.Lstat(base); err == nil && st.Mode().IsRegular() {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				o = durable.Owner{Mode: st.Mode().Perm(), UID: int(sys.Uid), GID: int(sys.Gid)}
			}
		}
		return durable.WriteIn(dir, base, b, o)
	})
}

func (s *System) writeAs(name string, b []byte, o durable.Owner) error {
	return s.replace(name, func(dir *os.Root, base string) error { return durable.WriteIn(dir, base, b, o) })
}

func (s *System) writeIn(dir, name string, b []byte) error {
	dir = strings.Trim(path.Clean("/"+dir), "/")
	if dir == "" {
		return errors.New("the directory of facts is not named")
	}
	return s.write(dir+"/"+name, b, 0o644)
}

func (s *System) link(name, target string) error {
	above, base := path.Split(name)
	dir, err := s.makeDir(above, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	temp := "." + base + ".new"
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := dir.Symlink(target, temp); err != nil {
		return err
	}
	if err := dir.Rename(temp, base); err != nil {
		dir.Remove(temp)
		return err
	}
	return durable.SyncIn(dir, ".")
}

// ErrNoAccount means that the image has no such user or group.
var ErrNoAccount = errors.New("the image has no such account")

// group returns the numeric ID of a group of the image.
func (s *System) group(name string) (int, error) {
	b, err := s.read("etc/group")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, ErrNoAccount
	}
	if err != nil {
		return 0, err
	}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Split(l, ":"); len(f) >= 3 && f[0] == name {
			if n, err := strconv.ParseUint(f[2], 10, 31); err == nil {
				return int(n), nil
			}
		}
	}
	return 0, fmt.Errorf("group %s: %w", name, ErrNoAccount)
}
