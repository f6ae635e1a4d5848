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
	panel   string // where something was printed last
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
		Print: func(panel, text string) { s.panel = panel; s.out.WriteString(text) },
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
		say    string
	}{
		"the password": {lines: []string{"right"}, hash: hash, who: "password"},
		"wrong, then right": {lines: []string{"wrong", "right"}, hash: hash, who: "password", waited: 2 * time.Second,
			say: sysroot.ErrPassword.Error() + "\n"},
		"wrong in an earlier boot": {lines: []string{"right"}, hash: hash, before: 5, who: "password", waited: 32 * time.Second},
		"wrong, and gone":          {lines: []string{"wrong", "wrong"}, hash: hash, want: errGone, after: 2, waited: 2 * time.Second},
		"the last try":             {lines: []string{"wrong"}, hash: hash, before: MaxTries - 1, want: fault.ShellLocked, after: MaxTries, waited: time.Minute},
		"locked":                   {lines: []string{"right"}, hash: hash, before: MaxTries, want: fault.ShellLocked, after: MaxTries},
		"locked, but support":      {on: answerWith(support), hash: hash, keys: keys, before: MaxTries, who: "support key " + support.Public().ID()},
		"support":                  {lines: []string{""}, on: answerWith(support), hash: hash, keys: keys, who: "support key"},
		"support, on a full volume": {lines: []string{""}, on: answerWith(support), hash: hash, keys: keys, broken: true, who: "support key",
			say: "The wrong tries cannot be forgotten: the volume is full\n"},
		"not support":            {lines: []string{"", ""}, on: nil, hash: hash, keys: keys, want: errors.New("nothing was typed")},
		"another key":            {lines: []string{""}, on: answerWith(other), hash: hash, keys: keys, want: errGone},
		"no volume":              {lines: []string{"right"}, want: fault.Policy},
		"no volume, but support": {on: answerWith(support), keys: keys, who: "support key"},
		"nobody can answer":      {lines: []string{""}, hash: hash, want: errGone},
		"cannot be counted":      {lines: []string{"right"}, hash: hash, broken: true, want: errGone},
		"another kind of hash":   {lines: []string{"right"}, hash: "$6$abc$def", want: errGone, after: 1},
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
			if !strings.Contains(s.out.String(), c.say) {
				t.Errorf("%q is not in\n%s", c.say, s.out.String())
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

// TestTryIsCountedFirst ends the time for the shell while the password waits to be looked at: nobody gets in, and the try is counted.
func TestTryIsCountedFirst(t *testing.T) {
	n := &counter{n: 3}
	s := &script{lines: []string{"guess"}}
	ctx, cancel := context.WithCancel(t.Context())
	g := Gate{Terminal: s.terminal(), Hash: "$2b$10$x", Tries: n.read, SetTries: n.write,
		Sleep: func(ctx context.Context, _ time.Duration) error {
			if n.n != 4 {
				t.Errorf("%d tries are counted, want 4", n.n)
			}
			cancel()
			return ctx.Err()
		}}
	if _, who, err := g.Open(ctx); !errors.Is(err, context.Canceled) || who != "" || n.n != 4 {
		t.Errorf("opened by %q, %v, %d tries", who, err, n.n)
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
	for name, text := range map[string]string{"log/a.log": "first\nsecond", "etc/shadow": "root:secret", "state/unit.key": "secret", "state/admin.hash": "secret", "odd": "a\x1b[2Jb", "name with blank": "x",
		"codes": "\x7f \t\u0080\u009f\u00a0\xff~\n", "empty": "", "mega": strings.Repeat("m", maxShown), "more": strings.Repeat("m", maxShown+1)} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "etc/shadow", "unreadable": "/proc/self/mem"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	sys := System{
		Root:    root,
		Mount:   func(source, target, fstype string, o host.MountOptions) error { return nil },
		Unmount: func(string) error { return nil },
		Mounts: func() ([]host.MountInfo, error) {
			return []host.MountInfo{{Source: "/dev/sda1", Target: "/x", Type: "ext4", ReadOnly: true}}, nil
		},
		Disks: func() ([]block.Disk, error) {
			return []block.Disk{{Path: "/dev/sda", Size: 1000, Bus: block.SATA, Model: "M", Partitions: []block.Partition{{Path: "/dev/sda1", Size: 500}}},
				{Path: "/dev/sdb", Size: 10}, {Path: "/dev/sdc", Size: 10}}, nil
		},
		Probe: func(path string) (filesystem.Info, error) {
			switch path {
			case "/dev/sda1":
				return filesystem.Info{Type: "ext4", Label: "PRIMARY", UUID: "u-1"}, nil
			case "/dev/sdb1":
				return filesystem.Info{Type: "ntfs"}, nil
			case "/dev/sdb2":
				return filesystem.Info{Type: "ext2"}, nil
			case "/dev/sdb":
				return filesystem.Info{}, nil
			}
			return filesystem.Info{}, fs404(path)
		},
		Kernel: func() ([]byte, error) {
			return []byte("<6>[0.0] one\n<4>[1.0] two\n<half\nhalf > line\n<3>[2.0] three\n"), nil
		},
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
	if gone := len(p.lines) == 0; errors.Is(err, errGone) != gone {
		t.Fatalf("the person is gone: %t, %v", gone, err)
	}
	head, out, _ := strings.Cut(p.out.String(), "leaves.\n")
	if !strings.Contains(head, "recovery shell of gprovision") {
		t.Errorf("at first it shows %q", head)
	}
	return out, exit, s
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
		"dmesg":           {[]string{"dmesg 2", "dmesg x"}, []string{"half > line\n[2.0] three\n", "usage: dmesg"}, []string{"one", "<4>"}},
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

// TestOutput: what a command shows, to the letter, where something else could stand beside it.
func TestOutput(t *testing.T) {
	for line, want := range map[string]string{
		"ls /log":               "a.log\n",
		"ls log/a.log etc":      "log/a.log\netc:\nshadow\n",
		"ls none log":           "lstat ROOT/none: no such file or directory\n",
		"cat codes":             "? \t??\u00a0?~\n",
		"cat empty odd empty":   "a?[2Jb\n",
		"cat mega":              strings.Repeat("m", maxShown) + "\n",
		"cat more":              strings.Repeat("m", maxShown) + "\n[more goes on]\n",
		"cat none":              "lstat ROOT/none: no such file or directory\n",
		"cat log":               "log is not a regular file\n",
		"cat unreadable":        "read /proc/PID/mem: input/output error\n",
		"cp log/a.log /copy":    "log/a.log: 12 bytes\n",
		"cp log/a.log odd /etc": "log/a.log: 12 bytes\nodd: 6 bytes\n",
		"cp none /copy":         "lstat ROOT/none: no such file or directory\n",
		"help poweroff":         "  poweroff                           switches the unit off\n",
		"help reboot":           "  reboot                             starts the unit again\n",
		"help exit":             "  exit                               leaves the shell: the unit decides again what to do\n",
		"help facts":            "  facts                              shows facts\n",
		"help ls cp":            "usage: help [COMMAND]\n",
		"reboot now":            "reboot: no such command; 'help' lists them\n",
		"dmesg 1":               "[2.0] three\n",
		"dmesg":                 "[0.0] one\n[1.0] two\n<half\nhalf > line\n[2.0] three\n",
		"dmesg 0":               "usage: dmesg [N]\n",
		"dmesg 1 2":             "usage: dmesg [N]\n",
		"disks": "/dev/sda                  1000 bytes  sata  M\n  /dev/sda1                500 bytes  ext4 \"PRIMARY\" u-1\n" +
			"/dev/sdb                    10 bytes    \n  nothing known\n" +
			"/dev/sdc                    10 bytes    \n  cannot be read: open /dev/sdc: file does not exist\n",
		"mount sda1 /odd/x": "mkdir ROOT/odd: not a directory\n",
		"mount --rw sda1":   "the person is gone\n",
		`cat "name`:         "EOF found when expecting closing quote\n",
	} {
		out, _, s := session(t, nil, line)
		got := strings.NewReplacer(s.System.Root, "ROOT", fmt.Sprint(os.Getpid()), "PID").Replace(out)
		if got != want {
			t.Errorf("%s\nshows %.200q\nwant  %.200q", line, got, want)
		}
	}
}

// TestHalfACopy: of a copy that fails or is stopped nothing is left, and the person is told.
func TestHalfACopy(t *testing.T) {
	out, _, s := session(t, nil, "cp unreadable /copy", "cp /copy /again")
	if !strings.Contains(out, "input/output error") || !strings.Contains(out, "copy: no such file") {
		t.Errorf("shown\n%s", out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.copy(ctx, io.Discard, []string{"odd", "/copy"})
	if _, left := os.Stat(s.path("/copy")); !errors.Is(err, context.Canceled) || !errors.Is(left, os.ErrNotExist) {
		t.Errorf("stopped: %v, %v", err, left)
	}
}

// TestDeafMachine: what the machine does not answer a command, the person reads, and the shell goes on.
func TestDeafMachine(t *testing.T) {
	deaf := errors.New("no answer")
	var log bytes.Buffer
	unmounted := 0
	out, _, s := session(t, func(s *System) {
		s.Mounts = func() ([]host.MountInfo, error) { return nil, deaf }
		s.Disks = func() ([]block.Disk, error) { return nil, deaf }
		s.Kernel = func() ([]byte, error) { return nil, deaf }
		s.Addresses = func(string) ([]string, error) { return nil, deaf }
		s.Mount = func(source, _, _ string, _ host.MountOptions) error {
			if source == "/dev/sdb2" {
				return deaf
			}
			return nil
		}
		s.Unmount = func(string) error { unmounted++; return deaf }
	}, "mount", "disks", "dmesg", "ip", "mount sdb2", "mount sda1", "umount /mnt/sda1", "umount /mnt/sdb2")
	want := "no answer\nno answer\nno answer\neth0         52:54:00:00:00:01  no answer\nno answer\n" +
		"/dev/sda1 is mounted on /mnt/sda1\nno answer\n/mnt/sdb2 was not mounted here\n"
	if out != want || unmounted != 2 {
		t.Errorf("shown\n%sunmounted %d times, at the end again", out, unmounted)
	}
	s.Log, s.mounted = slog.New(slog.NewTextHandler(&log, nil)), []string{"/x"}
	s.cleanUp()
	if len(s.mounted) > 0 || !strings.Contains(log.String(), "dir=/x") {
		t.Errorf("mounted are %v, logged is %s", s.mounted, &log)
	}
	s.System.Ports = func() ([]nic.Port, error) { return nil, deaf }
	if err := s.network(t.Context(), io.Discard, nil); !errors.Is(err, deaf) {
		t.Errorf("ports: %v", err)
	}
}

// TestMountOptions mounts read-only without a question and writable after one, unmounts what a person wants, and leaves nothing mounted.
func TestMountOptions(t *testing.T) {
	type mounted struct {
		dir, fstype string
		o           host.MountOptions
	}
	var did []mounted
	var gone []string
	change := func(s *System) {
		s.Mount = func(_, dir, fstype string, o host.MountOptions) error {
			did = append(did, mounted{filepath.Base(dir), fstype, o})
			return nil
		}
		s.Unmount = func(dir string) error { gone = append(gone, filepath.Base(dir)); return nil }
	}
	out, _, s := session(t, change, "mount sda1 /mnt/a", "mount sda1", "mount --rw sda1 /mnt/b", "no", "mount --rw sdb2 /mnt/c", "yes",
		"umount /mnt/a")
	safe := host.MountOptions{ReadOnly: true, NoSUID: true, NoDev: true, NoExec: true, Data: "noload"}
	want := []mounted{{"a", "ext4", safe}, {"sda1", "ext4", safe}, {"c", "ext4", host.MountOptions{NoSUID: true, NoDev: true, NoExec: true}}}
	if !slices.Equal(did, want) || !strings.Contains(out, "not confirmed") {
		t.Errorf("mounted %+v\n%s", did, out)
	}
	if !slices.Equal(gone, []string{"a", "c", "sda1"}) || len(s.mounted) > 0 {
		t.Errorf("unmounted %v", gone)
	}
}

// TestCommandsAreLogged: the log has each command, and nothing of what it prints.
func TestCommandsAreLogged(t *testing.T) {
	var log bytes.Buffer
	p := &script{lines: []string{"facts", `facts "of now"`, "exit"}}
	s := &Shell{Terminal: p.terminal(), Panel: "another", Log: slog.New(slog.NewTextHandler(&log, nil)), System: System{Root: t.TempDir(),
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
	if !strings.Contains(p.out.String(), "what was printed") || p.panel != "tty" {
		t.Errorf("the terminal has, on %s\n%s", p.panel, p.out.String())
	}
}
