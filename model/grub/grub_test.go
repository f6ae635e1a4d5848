package grub

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// configs are configurations that cover all that the writers can write.
func configs() map[string][]byte {
	e := Entry{Title: "Normal $(reboot) it's", Kernel: "/boot/gprov/0123/vmlinuz", Initrd: "/boot/gprov/0123/initrd",
		Args: "console=tty0 console=ttyS1,38400n8 a=$b;c quiet"}
	fallback := e
	fallback.Fallback = "11111111-2222-3333-4444-555555555555"
	menu := fallback
	menu.Forced = "FACTORY_RESTORE=1"
	erase := menu
	erase.Erase = "DATA_ERASE=1"
	monolithic := fallback
	monolithic.Initrd = ""
	return map[string][]byte{
		"main with menu":       MainConfig(menu),
		"with erase with menu": MainConfig(erase),
		"recovery with menu":   RecoveryConfig(Recovery{Main: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", Mark: "/boot.normal", Entry: menu}),
		"main":                 MainConfig(e), "main with fallback": MainConfig(fallback), "main, monolithic": MainConfig(monolithic),
		"recovery": RecoveryConfig(Recovery{Main: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", Mark: "/boot.normal", Entry: e}),
	}
}

func TestConfig(t *testing.T) {
	for name, c := range configs() {
		for _, want := range []string{
			"serial --unit=1 --speed=38400;", "linux '/boot/gprov/0123/vmlinuz' 'console=tty0' 'console=ttyS1,38400n8' 'a=$b;c' 'quiet';",
			`echo 'gprovision: Normal $(reboot) it'\''s'`,
		} {
			if !strings.Contains(string(c), want) {
				t.Errorf("%s: no %q in\n%s", name, want, c)
			}
		}
		if got := strings.Contains(string(c), "initrd"); got == strings.Contains(name, "monolithic") {
			t.Errorf("%s: it has the command initrd: %v\n%s", name, got, c)
		}
	}
	c := string(MainConfig(Entry{Title: "x\nreboot", Kernel: "/k\n", Initrd: "/i"}))
	if strings.Contains(c, "\nreboot\n") || strings.Contains(c, "serial") {
		t.Errorf("a title can be a command, or a serial port is used that nobody named:\n%s", c)
	}
}

// TestMenu: the argument of a forced restore stands in one place only, the entry of that name, and that is not the first one.
func TestMenu(t *testing.T) {
	for name, c := range configs() {
		text := string(c)
		menu := strings.HasSuffix(name, "with menu")
		want := 0
		if menu {
			want = 1
		}
		if n := strings.Count(text, "FACTORY_RESTORE"); n != want {
			t.Errorf("%s: the argument is there %d times, want %d", name, n, want)
		}
		_, last, erases := strings.Cut(text, "menuentry '"+EraseTitle+"' --unrestricted {")
		if erases != (strings.Count(text, "DATA_ERASE=1") == 1) || erases != strings.Contains(last, "DATA_ERASE=1") ||
			erases != strings.Contains(name, "erase") || strings.Contains(last, "FACTORY_RESTORE") {
			t.Errorf("%s: the argument of an erase stands elsewhere than in its own entry:\n%s", name, text)
		}
		if strings.Contains(text, "sleep --interruptible") != menu || strings.Contains(text, "menuentry") != menu {
			t.Errorf("%s: a menu, or a wait for a key, where there is none, or none where there is one:\n%s", name, text)
		}
		_, rest, _ := strings.Cut(text, "menuentry '"+ForcedTitle+"' --unrestricted {")
		first := "set default=0\nset timeout=60\nmenuentry '" + NormalTitle + "' --unrestricted {"
		if menu && (!strings.Contains(rest, "FACTORY_RESTORE") || !strings.Contains(text, first)) {
			t.Errorf("%s: the first entry is not the normal boot, or the second does not force a restore:\n%s", name, text)
		}
	}
}

// TestConfigLocks: the first commands of each configuration lock GRUB's command line, none opens it again, and the entries start without
// a password all the same.
func TestConfigLocks(t *testing.T) {
	for name, c := range configs() {
		var commands []string
		for line := range strings.Lines(string(c)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				commands = append(commands, line)
			}
		}
		text := strings.Join(commands, "\n")
		if !strings.HasPrefix(text, "set superusers=nobody\nexport superusers\n") || strings.Count(text, "superusers") != 2 ||
			strings.Contains(text, "\nnormal") {
			t.Errorf("%s: not locked first, or opened again:\n%s", name, text)
		}
		if n := strings.Count(text, "menuentry "); n != strings.Count(text, "' --unrestricted {") {
			t.Errorf("%s: not each of the %d entries starts:\n%s", name, n, text)
		}
	}
}

// TestConfigOfDebian lets GRUB's own parser read the configurations.
func TestConfigOfDebian(t *testing.T) {
	if _, err := exec.LookPath("grub-script-check"); err != nil {
		needs(t, "package grub-common")
	}
	for name, c := range configs() {
		cmd := exec.Command("grub-script-check")
		cmd.Stdin = bytes.NewReader(c)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s\n%s", name, err, out, c)
		}
	}
}

func TestEntryCheck(t *testing.T) {
	good := Entry{Title: "x", Kernel: "/a", Initrd: "/b", Args: "a=b c"}
	for _, e := range []Entry{good, {Title: "x", Kernel: "/a", Args: "a=b c"}} {
		if err := e.Check(); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Entry){
		"relative": func(e *Entry) { e.Kernel = "a" },
		"space":    func(e *Entry) { e.Initrd = "/a b" },
		"quote":    func(e *Entry) { e.Args = `a="b c"` },
		"newline":  func(e *Entry) { e.Args = "a\nb" },
		"uuid":     func(e *Entry) { e.Fallback = "x y" },
	} {
		e := good
		change(&e)
		if err := e.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSerialConsole(t *testing.T) {
	for args, want := range map[string][3]int{
		"":                                  {0, 0, 0},
		"console=tty0":                      {0, 0, 0},
		"console=ttyS0":                     {0, 9600, 1},
		"console=ttyS2,115200n8 console=x":  {2, 115200, 1},
		"console=ttyS0 console=ttyS1,57600": {1, 57600, 1},
		"console=ttyS9,9600":                {0, 0, 0},
		"console=ttyUSB0,9600":              {0, 0, 0},
	} {
		unit, speed, ok := serialConsole(args)
		if unit != want[0] || speed != want[1] || ok != (want[2] == 1) {
			t.Errorf("%q: got %d, %d, %v", args, unit, speed, ok)
		}
	}
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
