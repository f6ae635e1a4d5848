// Package grub writes what GRUB is told on BIOS machines: the configuration beside a kernel, with the menu that a person sees and the way
// from one disk to the other.
//
// It does not put GRUB on a disk (hw/bootloader) and does not make its images (forge/boot, which builds ConfigPath and Lock into them).
// Whatever is passed in, nothing of it can be taken for a command.
package grub

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ConfigPath is where GRUB finds its configuration on the volume that it boots from: forge/boot builds that into core.img.
const ConfigPath = "/boot/grub/grub.cfg"

// Lock are commands that lock GRUB's command line and its editor: both need the password of a superuser, and no user has one. Entries
// start only if they say that anybody may start them. A core.img of ours starts with these commands, and so does each configuration, for
// older ones.
const Lock = "set superusers=nobody\nexport superusers\n"

// What the menu offers.
const (
	NormalTitle = "Normal Boot"
	ForcedTitle = "Forced Factory Restore"
	EraseTitle  = "Data Erase"
)

// Seconds that GRUB waits: for a key that opens the menu, and for a choice in it before the normal boot.
const (
	keyWait  = 1
	menuWait = 60
)

// Entry is a kernel to start.
type Entry struct {
	// Title is printed while it is loaded.
	Title string
	// Kernel and Initrd are absolute paths on the volume that has the configuration. Initrd is empty for a kernel that holds
	// its initramfs.
	Kernel, Initrd string
	// Args are the kernel's arguments. A console=ttySN among them is used by GRUB too.
	Args string
	// Forced is the kernel argument that ForcedTitle adds. Without it there is no menu, and no wait for a key.
	Forced string
	// Erase is the kernel argument that EraseTitle adds. Without it the menu has no such entry. It counts only beside Forced.
	Erase string
	// Fallback is the filesystem UUID of another volume, whose configuration is tried when this kernel cannot be loaded.
	// It may be empty.
	Fallback string
}

// Recovery is what the recovery device starts.
type Recovery struct {
	// Main is the filesystem UUID of the main system, which is started if it is there and complete.
	Main string
	// Mark is the absolute path of the file that says so.
	Mark string
	// Entry is started otherwise.
	Entry Entry
}

var uuid = regexp.MustCompile(`^[0-9A-Fa-f-]{1,36}$`)

// Check says why GRUB could not start e as it is: a path that is not absolute or has unusual characters, a UUID that is none,
// an argument with a quote, a backslash or a character that is not printable ASCII, which GRUB would change on the way.
func (e Entry) Check() error {
	for i, p := range []string{e.Kernel, e.Initrd} {
		if i == 1 && p == "" {
			continue
		}
		bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`'"\$`, r) }
		if !strings.HasPrefix(p, "/") || strings.ContainsFunc(p, bad) {
			return fmt.Errorf("boot loader: bad path %q", p)
		}
	}
	if e.Fallback != "" && !uuid.MatchString(e.Fallback) {
		return fmt.Errorf("boot loader: bad filesystem UUID %q", e.Fallback)
	}
	if strings.ContainsFunc(e.Args+e.Forced+e.Erase, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`'"\`, r) }) {
		return fmt.Errorf("boot loader: kernel arguments %q have a character that GRUB would change", e.Args+" "+e.Forced+" "+e.Erase)
	}
	return nil
}

// MainConfig returns the configuration for the main disk. Nothing in e can be taken for a command: see Entry.Check for what
// reaches the kernel as it is.
func MainConfig(e Entry) []byte {
	return config(e, func(b *bytes.Buffer) {
		load(b, e, e.Args)
		if e.Fallback != "" {
			hop(b, e.Fallback, "")
		}
	})
}

// RecoveryConfig returns the configuration for the recovery device: the main system's own configuration if that system is
// there and has its mark, else the recovery kernel.
func RecoveryConfig(r Recovery) []byte {
	return config(r.Entry, func(b *bytes.Buffer) {
		hop(b, r.Main, r.Mark)
		load(b, r.Entry, r.Entry.Args)
	})
}

// config is the whole configuration around what a normal boot does. A person who presses ESC, or holds a shift key of the
// keyboard, while GRUB starts is offered the menu, on every console. Whatever is chosen there is for this boot only. The first of two
// configurations asks, and the menu ends by itself as long as nobody presses a key in it: a stray ESC on a serial line cannot stop the
// unit.
func config(e Entry, normal func(*bytes.Buffer)) []byte {
	var b bytes.Buffer
	head(&b, e)
	if e.Forced == "" {
		normal(&b)
		tail(&b)
		return b.Bytes()
	}
	fmt.Fprintf(&b, "set choose=\nif test -z \"$inner\"; then\n  echo 'gprovision: ESC for the boot menu'\n")
	fmt.Fprintf(&b, "  if keystatus --shift; then\n    set choose=1\n"+
		"  elif sleep --interruptible %d; then\n    set choose=\n  else\n    set choose=1\n  fi\nfi\n", keyWait)
	fmt.Fprintf(&b, "if test -n \"$choose\"; then\nset default=0\nset timeout=%d\n", menuWait)
	fmt.Fprintf(&b, "menuentry %s --unrestricted {\n", quote(NormalTitle))
	normal(&b)
	tail(&b)
	fmt.Fprintf(&b, "}\nmenuentry %s --unrestricted {\n", quote(ForcedTitle))
	load(&b, e, e.Args+" "+e.Forced)
	tail(&b)
	if e.Erase != "" {
		fmt.Fprintf(&b, "}\nmenuentry %s --unrestricted {\n", quote(EraseTitle))
		load(&b, e, e.Args+" "+e.Erase)
		tail(&b)
	}
	b.WriteString("}\nelse\n")
	normal(&b)
	tail(&b)
	b.WriteString("fi\n")
	return b.Bytes()
}

// head notes which volume this is, and whether another configuration led here: then this one returns when it cannot start
// anything, so that two that lead to each other do not go round in circles.
func head(b *bytes.Buffer, e Entry) {
	b.WriteString("# Written by gprovision, replaced by each restore.\n" + Lock + "set own=\"$root\"\nset inner=\"$gprov_inner\"\n")
	unit, speed, ok := serialConsole(e.Args)
	if ok {
		fmt.Fprintf(b, "if serial --unit=%d --speed=%d; then\n", unit, speed)
		b.WriteString("  terminal_input serial console\n  terminal_output serial console\nfi\n")
	}
}

// hop leads to the configuration of another volume.
func hop(b *bytes.Buffer, fsuuid, mark string) {
	other := `"($other)` + ConfigPath + `"`
	fmt.Fprintf(b, "if test -z \"$inner\"; then\n  if search --no-floppy --fs-uuid --set=other %s; then\n", quote(fsuuid))
	if mark != "" {
		fmt.Fprintf(b, "    if test -f \"($other)\"%s; then\n", quote(mark))
	}
	fmt.Fprintf(b, "    if test -f %s; then\n      set gprov_inner=1\n      export gprov_inner\n", other)
	fmt.Fprintf(b, "      set root=\"$other\"\n      configfile %s\n    fi\n", other)
	if mark != "" {
		b.WriteString("    fi\n")
	}
	b.WriteString("  fi\nfi\n")
}

// load starts the kernel of e with the given arguments.
func load(b *bytes.Buffer, e Entry, args string) {
	fmt.Fprintf(b, "set root=\"$own\"\necho %s\nif linux %s", quote("gprovision: "+e.Title), quote(e.Kernel))
	for _, a := range strings.Fields(args) {
		b.WriteString(" " + quote(a))
	}
	if e.Initrd == "" {
		b.WriteString("; then\n  boot\nfi\n")
		return
	}
	fmt.Fprintf(b, "; then\n  if initrd %s; then\n    boot\n  fi\nfi\n", quote(e.Initrd))
}

// tail ends a configuration that could start nothing.
func tail(b *bytes.Buffer) {
	b.WriteString("if test -z \"$inner\"; then\n  echo 'gprovision: nothing to start on this disk. Trying again in 30 seconds.'\n")
	b.WriteString("  sleep 30\n  reboot\nfi\n")
}

// quote makes one word of GRUB's script language, in which nothing is expanded. Characters that end a line are left out.
func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// serialConsole returns the serial port among the consoles of the kernel's arguments, the last one: console=ttyS1,115200n8.
func serialConsole(args string) (unit, speed int, ok bool) {
	for _, a := range strings.Fields(args) {
		port, found := strings.CutPrefix(a, "console=ttyS")
		if !found {
			continue
		}
		number, options, _ := strings.Cut(port, ",")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > 3 {
			continue
		}
		unit, speed, ok = n, 9600, true
		digits := strings.IndexFunc(options, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(options)
		}
		if v, err := strconv.Atoi(options[:digits]); err == nil && v > 0 && v <= 4000000 {
			speed = v
		}
	}
	return unit, speed, ok
}
