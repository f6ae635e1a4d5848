package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/nic"
	"gprovision/model/challenge"
	"gprovision/model/fault"
	"gprovision/model/secret"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
	"gprovision/unit/sysroot"
)

// errGone is what a scripted terminal ends with.
var errGone = errors.New("the person is gone")

// script is a person who types lines.
type script struct {
	lines []string
	// on, if it is set, makes the next line from the prompt.
	on      func(prompt string) (string, bool)
	prompts []string
	secret  []bool
	out     strings.Builder
}

func (s *script) terminal() Terminal {
	return Terminal{
		Line: func(ctx context.Context, prompt string, secret bool) (string, string, error) {
			s.prompts, s.secret = append(s.prompts, prompt), append(s.secret, secret)
			if s.on != nil {
				if text, ok := s.on(prompt); ok {
					return text, "tty", nil
				}
			}
			if len(s.lines) == 0 {
				return "", "", errGone
			}
			l := s.lines[0]
			s.lines = s.lines[1:]
			return l, "tty", ctx.Err()
		},
		Print: func(panel, text string) { s.out.WriteString(text) },
	}
}

// counter is the count of wrong passwords on a volume.
type counter struct {
	n      int
	broken bool
	writes []int
}

func (c *counter) read() (int, error) { return c.n, nil }
func (c *counter) write(n int) error {
	if c.broken {
		return errors.New("the volume is full")
	}
	c.n = n
	c.writes = append(c.writes, n)
	return nil
}

func TestGate(t *testing.T) {
	hash, err := sysroot.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	support, other := keytest.New(t), keytest.New(t)
	answerWith := func(key signature.PrivateKey) func(string) (string, bool) {
		return func(prompt string) (string, bool) {
			text, ok := strings.CutPrefix(prompt, "answer to ")
			if !ok {
				return "", false
			}
			c, err := challenge.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			a, err := c.Answer(key)
			if err != nil {
				t.Fatal(err)
			}
			return a, true
		}
	}
	keys := []signature.PublicKey{support.Public()}
	for name, c := range map[string]struct {
		lines  []string
		on     func(string) (string, bool)
		hash   string
		keys   []signature.PublicKey
		before int
		broken bool
		want   error
		who    string
		after  int
		waited time.Duration
	}{
		"the password":             {lines: []string{"right"}, hash: hash, who: "password"},
		"wrong, then right":        {lines: []string{"wrong", "right"}, hash: hash, who: "password", waited: 2 * time.Second},
		"wrong in an earlier boot": {lines: []string{"right"}, hash: hash, before: 5, who: "password", waited: 32 * time.Second},
		"wrong, and gone":          {lines: []string{"wrong", "wrong"}, hash: hash, want: errGone, after: 2, waited: 2 * time.Second},
		"the last try":             {lines: []string{"wrong"}, hash: hash, before: MaxTries - 1, want: fault.ShellLocked, after: MaxTries, waited: time.Minute},
		"locked":                   {lines: []string{"right"}, hash: hash, before: MaxTries, want: fault.ShellLocked, after: MaxTries},
		"locked, but support":      {on: answerWith(support), hash: hash, keys: keys, before: MaxTries, who: "support key " + support.Public().ID()},
		"support":                  {lines: []string{""}, on: answerWith(support), hash: hash, keys: keys, who: "support key"},
		"not support":              {lines: []string{"", ""}, on: nil, hash: hash, keys: keys, want: errors.New("nothing was typed")},
		"another key":              {lines: []string{""}, on: answerWith(other), hash: hash, keys: keys, want: errGone},
		"no volume":                {lines: []string{"right"}, want: fault.Policy},
		"no volume, but support":   {on: answerWith(support), keys: keys, who: "support key"},
		"nobody can answer":        {lines: []string{""}, hash: hash, want: errGone},
		"cannot be counted":        {lines: []string{"right"}, hash: hash, broken: true, want: errGone},
		"another kind of hash":     {lines: []string{"right"}, hash: "$6$abc$def", want: errGone, after: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{lines: c.lines, on: c.on}
			n := &counter{n: c.before, broken: c.broken}
			var waited time.Duration
			g := Gate{Terminal: s.terminal(), Serial: "SN-1", Hash: c.hash, Keys: c.keys, Tries: n.read, SetTries: n.write,
				Sleep: func(_ context.Context, d time.Duration) error { waited += d; return nil }}
			panel, who, err := g.Open(t.Context())
			if (err == nil) != (c.want == nil) || c.want != nil && !errors.Is(err, c.want) && err.Error() != c.want.Error() {
				t.Fatalf("error %v, want %v\n%s", err, c.want, s.out.String())
			}
			if err == nil && (panel != "tty" || !strings.Contains(who, c.who)) {
				t.Errorf("opened on %q by %q", panel, who)
			}
			if n.n != c.after || waited != c.waited {
				t.Errorf("%d tries and %v, want %d and %v", n.n, waited, c.after, c.waited)
			}
			for i, p := range s.prompts {
				if strings.HasPrefix(p, "password") != s.secret[i] {
					t.Errorf("what is typed at %q is shown: %v", p, !s.secret[i])
				}
			}
			if len(c.lines) > 0 && c.lines[0] != "" && strings.Contains(s.out.String(), c.lines[0]+"\n") {
				t.Error("the password is shown")
			}
		})
	}
}

// TestTryIsCountedFirst switches the unit off while the password is looked at.
func TestTryIsCountedFirst(t *testing.T) {
	n := &counter{n: 3}
	s := &script{lines: []string{"guess"}}
	g := Gate{Terminal: s.terminal(), Hash: "$2b$10$x", Tries: n.read, SetTries: n.write,
		Sleep: func(context.Context, time.Duration) error {
			if n.n != 4 {
				t.Errorf("%d tries are counted, want 4", n.n)
			}
			return errGone
		}}
	if err := g.password(t.Context(), 3, secret.Secret("guess")); !errors.Is(err, errGone) {
		t.Error(err)
	}
}

// TestTriesUnknown: where nobody knows how many wrong passwords there were, none is taken. Support can still answer.
func TestTriesUnknown(t *testing.T) {
	hash, err := sysroot.HashPassword("right")
	if err != nil {
		t.Fatal(err)
	}
	damaged := errors.New("the counts are damaged")
	for name, keys := range map[string][]signature.PublicKey{"nobody else": nil, "support": {keytest.New(t).Public()}} {
		s := &script{lines: []string{"right"}}
		g := Gate{Terminal: s.terminal(), Serial: "SN-1", Hash: hash, Keys: keys, Tries: func() (int, error) { return 0, damaged },
			SetTries: func(int) error { t.Error("a try is counted"); return nil },
			Sleep:    func(context.Context, time.Duration) error { t.Error("a password is looked at"); return nil }}
		_, who, err := g.Open(t.Context())
		if err == nil || who != "" || keys == nil && fault.Of(err) != fault.ShellLocked {
			t.Errorf("%s: opened by %q, %v", name, who, err)
		}
		if out := s.out.String(); keys != nil && (!strings.Contains(out, damaged.Error()) || !strings.Contains(out, "SN-1")) {
			t.Errorf("%s: the terminal shows %q", name, out)
		}
	}
}

// session runs commands in a small tree and returns what they print.
func session(t *testing.T, change func(*System), lines ...string) (string, Exit, *Shell) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"log/a.log": "first\nsecond", "etc/shadow": "root:secret", "state/unit.key": "secret", "state/admin.hash": "secret", "odd": "a\x1b[2Jb", "name with blank": "x"} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("etc/shadow", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	sys := System{
		Root:    root,
		Mount:   func(source, target, fstype string, o host.MountOptions) error { return nil },
		Unmount: func(string) error { return nil },
		Mounts: func() ([]host.MountInfo, error) {
			return []host.MountInfo{{Source: "/dev/sda1", Target: "/x", Type: "ext4", ReadOnly: true}}, nil
		},
		Disks: func() ([]block.Disk, error) {
			return []block.Disk{{Path: "/dev/sda", Size: 1000, Bus: block.SATA, Model: "M", Partitions: []block.Partition{{Path: "/dev/sda1", Size: 500}}}}, nil
		},
		Probe: func(path string) (filesystem.Info, error) {
			switch path {
			case "/dev/sda1":
				return filesystem.Info{Type: "ext4", Label: "PRIMARY", UUID: "u-1"}, nil
			case "/dev/sdb1":
				return filesystem.Info{Type: "ntfs"}, nil
			}
			return filesystem.Info{}, fs404(path)
		},
		Kernel:    func() ([]byte, error) { return []byte("<6>[0.0] one\n<4>[1.0] two\n<3>[2.0] three\n"), nil },
		Ports:     func() ([]nic.Port, error) { return []nic.Port{{Name: "eth0", MAC: "52:54:00:00:00:01"}}, nil },
		Addresses: func(string) ([]string, error) { return []string{"up", "10.0.0.1/24"}, nil },
		Inspections: []Inspection{{"facts", "shows facts", func(_ context.Context, w io.Writer, args []string) error {
			_, err := fmt.Fprintln(w, "facts", args)
			return err
		}}, {"broken", "panics", func(context.Context, io.Writer, []string) error { panic("no") }}},
	}
	if change != nil {
		change(&sys)
	}
	p := &script{lines: lines}
	s := &Shell{Terminal: p.terminal(), System: sys, Log: slog.New(slog.DiscardHandler), Panel: "tty"}
	exit, err := s.Run(t.Context())
	if err != nil && !errors.Is(err, errGone) {
		t.Fatal(err)
	}
	return p.out.String(), exit, s
}

func fs404(path string) error { return &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist} }

func TestCommands(t *testing.T) {
	for name, c := range map[string]struct {
		lines   []string
		want    []string
		without []string
	}{
		"help":            {[]string{"help"}, []string{"cat FILE...", "facts", "poweroff", "mount [--rw]"}, nil},
		"help of one":     {[]string{"help cp"}, []string{"copies files"}, []string{"dmesg"}},
		"help of nothing": {[]string{"help me"}, []string{"no such command"}, nil},
		"ls":              {[]string{"ls"}, []string{"log/\n", "link -> etc/shadow\n"}, nil},
		"ls of a file":    {[]string{"ls -l /log/a.log"}, []string{"-rw-r--r--", " 12 "}, nil},
		"ls of two":       {[]string{"ls log etc"}, []string{"log:\n", "etc:\n"}, nil},
		"cat":             {[]string{"cat /log/a.log"}, []string{"first\nsecond\n"}, nil},
		"quotes":          {[]string{`cat "name with blank"`, `cat 'name with blank'`, `cat name\ with\ blank`}, []string{"x\nx\nx\n"}, nil},
		"open quotes":     {[]string{`cat "name`}, []string{"EOF"}, nil},
		"escapes":         {[]string{"cat odd"}, []string{"a?[2Jb"}, []string{"\x1b"}},
		"secrets":         {[]string{"cat etc/shadow", "cat link", "cp state/unit.key /log/k", "cat state/admin.hash"}, []string{"holds secrets"}, []string{"root:", "bytes", "secret\n"}},
		"outside":         {[]string{"ls ../../../.."}, []string{"log/"}, nil},
		"cp":              {[]string{"cp log/a.log odd log2", "cp log/a.log /copy", "cat copy", "cp odd copy", "cp odd log"}, []string{"not a directory", "12 bytes", "first", "file exists", "odd: 6 bytes"}, nil},
		"mounts":          {[]string{"mount"}, []string{"/dev/sda1 on /x, ext4, ro"}, nil},
		"mount":           {[]string{"mount sda1", "mount /dev/sdb1", "mount sdc1", "umount /mnt/sda1", "umount /mnt/sda1"}, []string{"is mounted on /mnt/sda1", `carries "ntfs"`, "not exist", "was not mounted here"}, nil},
		"disks":           {[]string{"disks"}, []string{"/dev/sda ", "1000 bytes", `ext4 "PRIMARY" u-1`}, nil},
		"dmesg":           {[]string{"dmesg 2", "dmesg x"}, []string{"[1.0] two\n[2.0] three\n", "usage: dmesg"}, []string{"one", "<4>"}},
		"ip":              {[]string{"ip"}, []string{"eth0", "10.0.0.1/24"}, nil},
		"inspection":      {[]string{"facts now"}, []string{"facts [now]"}, nil},
		"a panic":         {[]string{"broken", "facts"}, []string{"panic: no", "facts []"}, nil},
		"no command":      {[]string{"", "   ", "rm -rf /"}, []string{"rm: no such command"}, nil},
		"usage":           {[]string{"cat", "cp a", "umount", "ip x", "disks x", "mount a b c"}, []string{"usage: cat", "usage: cp", "usage: umount", "usage: ip", "usage: disks", "usage: mount"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, exit, _ := session(t, nil, c.lines...)
			at := 0
			for _, w := range c.want {
				i := strings.Index(out[at:], w)
				if i < 0 {
					t.Fatalf("%q is not in, or too early in\n%s", w, out)
				}
				if name != "help" && name != "ls" {
					at += i
				}
			}
			for _, w := range c.without {
				if strings.Contains(out, w) {
					t.Errorf("%q is in\n%s", w, out)
				}
			}
			if exit != Leave {
				t.Errorf("left with %q", exit)
			}
		})
	}
}

func TestExits(t *testing.T) {
	for line, want := range map[string]Exit{"exit": Leave, "quit": Leave, "reboot": Reboot, "poweroff": PowerOff} {
		if _, exit, _ := session(t, nil, line, "facts"); exit != want {
			t.Errorf("%s: %q", line, exit)
		}
	}
}

// TestMountOptions mounts read-only without a question and writable after one, and leaves nothing mounted.
func TestMountOptions(t *testing.T) {
	var mounted []host.MountOptions
	var gone []string
	change := func(s *System) {
		s.Mount = func(_, _, _ string, o host.MountOptions) error { mounted = append(mounted, o); return nil }
		s.Unmount = func(dir string) error { gone = append(gone, filepath.Base(dir)); return nil }
	}
	out, _, s := session(t, change, "mount sda1", "mount --rw sda1 /mnt/b", "no", "mount --rw sda1 /mnt/c", "yes")
	want := []host.MountOptions{{ReadOnly: true, NoSUID: true, NoDev: true, NoExec: true, Data: "noload"}, {NoSUID: true, NoDev: true, NoExec: true}}
	if !slices.Equal(mounted, want) || !strings.Contains(out, "not confirmed") {
		t.Errorf("mounted with %+v\n%s", mounted, out)
	}
	if !slices.Equal(gone, []string{"c", "sda1"}) || len(s.mounted) > 0 {
		t.Errorf("unmounted %v", gone)
	}
}

// TestCommandsAreLogged: the log has each command, and nothing of what it prints.
func TestCommandsAreLogged(t *testing.T) {
	var log bytes.Buffer
	p := &script{lines: []string{"facts", `facts "of now"`, "exit"}}
	s := &Shell{Terminal: p.terminal(), Panel: "tty", Log: slog.New(slog.NewTextHandler(&log, nil)), System: System{Root: t.TempDir(),
		Inspections: []Inspection{{"facts", "shows facts", func(_ context.Context, w io.Writer, _ []string) error {
			_, err := fmt.Fprintln(w, "what was printed")
			return err
		}}}}}
	if _, err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "command=") != 3 || !strings.Contains(got, "of now") || strings.Contains(got, "printed") {
		t.Errorf("the log has\n%s", got)
	}
	if !strings.Contains(p.out.String(), "what was printed") {
		t.Errorf("the terminal has\n%s", p.out.String())
	}
}
