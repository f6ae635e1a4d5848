// Package shell is the recovery shell: a few commands for support staff, inside init, on the console of whoever opened it.
//
// It is no general shell: a line is one command with arguments, quoted as in other shells; there are no pipes, variables or
// programs. What it mounts is read-only unless a person confirms otherwise, and is unmounted at the end. Commands are logged, what
// they print is not. Files that hold secrets are not shown by accident; who has opened the shell could get at them all the same.
//
// Gate lets people in. The commands reach the machine only through System. Run is the job.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/shlex"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/nic"
)

// Exit is what is to happen after the shell.
type Exit string

// The ways to leave the shell.
const (
	Leave    Exit = "leave" // the unit decides again
	Reboot   Exit = "reboot"
	PowerOff Exit = "power off"
)

// System is the machine as the commands see it.
type System struct {
	// Root is put before each path: "" on a unit.
	Root string
	// Mount and Unmount are those of machine.Doors.
	Mount   func(source, target, fstype string, o host.MountOptions) error
	Unmount func(target string) error
	// Mounts lists what is mounted.
	Mounts func() ([]host.MountInfo, error)
	// Disks lists the disks, and Probe says what is on one or on a partition.
	Disks func() ([]block.Disk, error)
	Probe func(path string) (filesystem.Info, error)
	// Kernel returns the kernel's messages.
	Kernel func() ([]byte, error)
	// Ports lists the network ports, and Addresses those of one of them.
	Ports     func() ([]nic.Port, error)
	Addresses func(port string) ([]string, error)
	// Inspections are more commands, of gprovision itself.
	Inspections []Inspection
}

// Inspection is a command that prints what gprovision knows.
type Inspection struct {
	// Name is the command, and Help one line about it.
	Name, Help string
	// Run prints to w.
	Run func(ctx context.Context, w io.Writer, args []string) error
}

// Shell is one session.
type Shell struct {
	Terminal Terminal
	System   System
	Log      *slog.Logger
	// Panel is where the session began. The output goes to the panel on which a command was typed.
	Panel string

	mounted []string
}

// errUsage says that a command was called in a wrong way.
var errUsage = errors.New("wrong usage")

type command struct {
	name, usage, help string
	run               func(s *Shell, ctx context.Context, w io.Writer, args []string) error
}

// commands are all but the ways out, in the order of help.
func commands() []command {
	return []command{
		{"help", "[COMMAND]", "lists the commands, or explains one", (*Shell).help},
		{"ls", "[-l] [PATH]...", "lists a directory", (*Shell).list},
		{"cat", "FILE...", "shows files, up to 1 MiB of each", (*Shell).cat},
		{"cp", "FILE... TARGET", "copies files to a file or into a directory", (*Shell).copy},
		{"mount", "[--rw] [DEVICE [DIRECTORY]]", "mounts a filesystem read-only, below /mnt; without a device: lists what is mounted", (*Shell).mount},
		{"umount", "DIRECTORY", "unmounts what mount mounted", (*Shell).unmount},
		{"disks", "", "lists disks, partitions and what is on them", (*Shell).disks},
		{"dmesg", "[N]", "shows the last N messages of the kernel (100)", (*Shell).kernel},
		{"ip", "", "lists network ports and addresses", (*Shell).network},
	}
}

// exits are the ways out.
func exits() map[string]Exit {
	return map[string]Exit{"exit": Leave, "quit": Leave, "reboot": Reboot, "poweroff": PowerOff}
}

// Run reads and runs commands until the person leaves, or the terminal fails, which is an error. Either way everything that was
// mounted is unmounted.
func (s *Shell) Run(ctx context.Context) (Exit, error) {
	defer s.cleanUp()
	s.Terminal.Print(s.Panel, "\nThis is the recovery shell of gprovision. 'help' lists the commands, 'exit' leaves.\n")
	for {
		line, panel, err := s.Terminal.Line(ctx, "recovery shell", false)
		if err != nil {
			return Leave, err
		}
		args, err := shlex.Split(line)
		if err != nil {
			s.Terminal.Print(panel, err.Error()+"\n")
			continue
		}
		if len(args) == 0 {
			continue
		}
		s.Log.Info("shell", "panel", panel, "command", line)
		s.Panel = panel
		if e, ok := exits()[args[0]]; ok && len(args) == 1 {
			return e, nil
		}
		if err := s.do(ctx, args); err != nil {
			s.Terminal.Print(panel, err.Error()+"\n")
		}
	}
}

// do runs one command. A panic is its failure.
func (s *Shell) do(ctx context.Context, args []string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: panic: %v", args[0], v)
		}
	}()
	w := printer{s.Terminal.Print, s.Panel}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(s, ctx, w, args[1:])
		if errors.Is(err, errUsage) {
			return fmt.Errorf("usage: %s %s", c.name, c.usage)
		}
		return err
	}
	for _, i := range s.System.Inspections {
		if i.Name == args[0] {
			return i.Run(ctx, w, args[1:])
		}
	}
	return fmt.Errorf("%s: no such command; 'help' lists them", args[0])
}

// printer is a panel as a writer, without what could move its cursor.
type printer struct {
	print func(panel, text string)
	panel string
}

func (p printer) Write(b []byte) (int, error) {
	p.print(p.panel, strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?")))
	return len(b), nil
}

func (s *Shell) help(_ context.Context, w io.Writer, args []string) error {
	if len(args) > 1 {
		return errUsage
	}
	found := false
	show := func(name, usage, help string) {
		if len(args) == 0 || args[0] == name {
			found = true
			fmt.Fprintf(w, "  %-34s %s\n", strings.TrimSpace(name+" "+usage), help)
		}
	}
	for _, c := range commands() {
		show(c.name, c.usage, c.help)
	}
	for _, i := range s.System.Inspections {
		show(i.Name, "", i.Help)
	}
	show("exit", "", "leaves the shell: the unit decides again what to do")
	show("reboot", "", "starts the unit again")
	show("poweroff", "", "switches the unit off")
	if !found {
		return fmt.Errorf("%s: no such command", args[0])
	}
	return nil
}

// path is where a path that was typed is.
func (s *Shell) path(p string) string { return filepath.Join(s.System.Root, filepath.Join("/", p)) }

func (s *Shell) list(_ context.Context, w io.Writer, args []string) error {
	long := false
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { long = long || a == "-l"; return a == "-l" })
	if len(args) == 0 {
		args = []string{"/"}
	}
	for _, a := range args {
		st, err := os.Lstat(s.path(a))
		if err != nil {
			return err
		}
		if !st.IsDir() {
			showEntry(w, a, st, s.path(a), long)
			continue
		}
		entries, err := os.ReadDir(s.path(a))
		if err != nil {
			return err
		}
		if len(args) > 1 {
			fmt.Fprintf(w, "%s:\n", a)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				showEntry(w, e.Name(), info, filepath.Join(s.path(a), e.Name()), long)
			}
		}
	}
	return nil
}

func showEntry(w io.Writer, name string, st os.FileInfo, path string, long bool) {
	switch st.Mode().Type() {
	case os.ModeDir:
		name += "/"
	case os.ModeSymlink:
		if to, err := os.Readlink(path); err == nil {
			name += " -> " + to
		}
	}
	if long {
		fmt.Fprintf(w, "%s %12d %s ", st.Mode(), st.Size(), st.ModTime().UTC().Format("2006-01-02 15:04:05"))
	}
	fmt.Fprintln(w, name)
}

// maxShown is how much of a file is shown, bytes.
const maxShown = 1 << 20

func (s *Shell) cat(_ context.Context, w io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, a := range args {
		f, err := s.open(a)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(f, maxShown+1))
		f.Close()
		if err != nil {
			return err
		}
		cut := len(b) > maxShown
		w.Write(b[:min(len(b), maxShown)])
		if len(b) > 0 && b[len(b)-1] != '\n' {
			fmt.Fprintln(w)
		}
		if cut {
			fmt.Fprintf(w, "[%s goes on]\n", a)
		}
	}
	return nil
}

// secrets are the names of files that hold keys and password hashes.
func secrets() []string {
	return []string{"unit.key", "admin.hash", "shadow", "shadow-", "gshadow", "gshadow-"}
}

// open opens a regular file, or one of /proc and /sys, that holds no secret.
func (s *Shell) open(name string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(s.path(name))
	if err != nil {
		return nil, err
	}
	if slices.Contains(secrets(), filepath.Base(real)) {
		return nil, fmt.Errorf("%s holds secrets and is not shown", name)
	}
	st, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return os.Open(real)
}

func (s *Shell) copy(ctx context.Context, w io.Writer, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	to := s.path(args[len(args)-1])
	st, err := os.Stat(to)
	dir := err == nil && st.IsDir()
	if !dir && len(args) > 2 {
		return fmt.Errorf("%s is not a directory", args[len(args)-1])
	}
	for _, a := range args[:len(args)-1] {
		target := to
		if dir {
			target = filepath.Join(to, filepath.Base(a))
		}
		n, err := s.copyFile(ctx, a, target)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: %d bytes\n", a, n)
	}
	return nil
}

// copyFile copies to a file that is not there yet: nothing is overwritten.
func (s *Shell) copyFile(ctx context.Context, from, to string) (int64, error) {
	in, err := s.open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, stoppable{ctx, in})
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		err = errors.Join(err, os.Remove(to))
	}
	return n, err
}

// stoppable ends a copy when ctx does.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (c stoppable) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

func (s *Shell) mount(ctx context.Context, w io.Writer, args []string) error {
	rw := slices.Contains(args, "--rw")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--rw" })
	if len(args) > 2 {
		return errUsage
	}
	if len(args) == 0 {
		all, err := s.System.Mounts()
		if err != nil {
			return err
		}
		for _, m := range all {
			how := "rw"
			if m.ReadOnly {
				how = "ro"
			}
			fmt.Fprintf(w, "%s on %s, %s, %s\n", m.Source, m.Target, m.Type, how)
		}
		return nil
	}
	device := args[0]
	if !strings.HasPrefix(device, "/") {
		device = "/dev/" + device
	}
	info, err := s.System.Probe(device)
	if err != nil {
		return err
	}
	o := host.MountOptions{ReadOnly: !rw, NoSUID: true, NoDev: true, NoExec: true}
	switch info.Type {
	case "vfat", "exfat":
	case "ext4", "ext2":
		info.Type = "ext4"
		if !rw {
			o.Data = "noload" // without it the kernel may write even so
		}
	default:
		return fmt.Errorf("%s carries %q, which cannot be mounted", device, info.Type)
	}
	dir := filepath.Join("/mnt", filepath.Base(device))
	if len(args) == 2 {
		dir = args[1]
	}
	if rw {
		text, _, err := s.Terminal.Line(ctx, fmt.Sprintf("Mount %s (%s %q) so that it can be changed? Type yes", device, info.Type, info.Label), false)
		if err != nil {
			return err
		}
		if text != "yes" {
			return errors.New("not confirmed")
		}
	}
	if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
		return err
	}
	if err := s.System.Mount(device, s.path(dir), info.Type, o); err != nil {
		return err
	}
	s.mounted = append(s.mounted, s.path(dir))
	fmt.Fprintf(w, "%s is mounted on %s\n", device, dir)
	return nil
}

func (s *Shell) unmount(_ context.Context, w io.Writer, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	i := slices.Index(s.mounted, s.path(args[0]))
	if i < 0 {
		return fmt.Errorf("%s was not mounted here", args[0])
	}
	if err := s.System.Unmount(s.mounted[i]); err != nil {
		return err
	}
	s.mounted = slices.Delete(s.mounted, i, i+1)
	return nil
}

// cleanUp unmounts what is left, the newest first.
func (s *Shell) cleanUp() {
	for _, dir := range slices.Backward(s.mounted) {
		if err := s.System.Unmount(dir); err != nil {
			s.Log.Warn("shell: volume cannot be unmounted", "dir", dir, "err", err)
		}
	}
	s.mounted = nil
}

func (s *Shell) disks(_ context.Context, w io.Writer, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	disks, err := s.System.Disks()
	if err != nil {
		return err
	}
	for _, d := range disks {
		fmt.Fprintf(w, "%-14s %15d bytes  %s  %s\n", d.Path, d.Size, d.Bus, strings.TrimSpace(d.Vendor+" "+d.Model+" "+d.Serial))
		if len(d.Partitions) == 0 {
			fmt.Fprintf(w, "  %s\n", s.content(d.Path))
		}
		for _, p := range d.Partitions {
			fmt.Fprintf(w, "  %-12s %15d bytes  %s\n", p.Path, p.Size, s.content(p.Path))
		}
	}
	return nil
}

func (s *Shell) content(path string) string {
	i, err := s.System.Probe(path)
	switch {
	case err != nil:
		return "cannot be read: " + err.Error()
	case i.Type == "":
		return "nothing known"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %q %s", i.Type, i.Label, i.UUID))
}

func (s *Shell) kernel(_ context.Context, w io.Writer, args []string) error {
	n := 100
	if len(args) > 1 {
		return errUsage
	}
	if len(args) == 1 {
		if _, err := fmt.Sscanf(args[0], "%d", &n); err != nil || n < 1 {
			return errUsage
		}
	}
	b, err := s.System.Kernel()
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for _, l := range lines[max(0, len(lines)-n):] {
		if level, text, ok := strings.Cut(l, ">"); ok && strings.HasPrefix(level, "<") {
			l = text
		}
		fmt.Fprintln(w, l)
	}
	return nil
}

func (s *Shell) network(_ context.Context, w io.Writer, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	ports, err := s.System.Ports()
	if err != nil {
		return err
	}
	for _, p := range ports {
		a, err := s.System.Addresses(p.Name)
		if err != nil {
			a = []string{err.Error()}
		}
		fmt.Fprintf(w, "%-12s %s  %s\n", p.Name, p.MAC, strings.Join(a, " "))
	}
	return nil
}
