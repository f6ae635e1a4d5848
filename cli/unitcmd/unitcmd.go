// Package unitcmd holds the verbs of gprov-unit, the command inside a unit's running system. It imports nothing of the
// factory server, the builders or the lab, so that the program stays small.
//
// The recovery volume is mounted read-only and only root sees into it. A verb that writes to it makes it writable for that
// moment, one process at a time.
package unitcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/naming"
	"gprovision/site"
	"gprovision/unit/splash"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// Commands are the verbs of gprov-unit.
type Commands struct {
	Status      StatusCmd           `cmd:"" help:"Show what this unit is, what it runs and what its recovery remembers."`
	BootOK      BootOKCmd           `cmd:"" name:"boot-ok" help:"Mark this boot as good and tell the factory server that the system runs."`
	Restore     RestoreCmd          `cmd:"" help:"Ask for a factory restore at the next boot. All data on the main disk will be lost."`
	Reset       ResetCmd            `cmd:"" help:"Ask for a reset at the next boot: settings, system, everything, or an erase."`
	Certificate EraseCertificateCmd `cmd:"" name:"erase-certificate" help:"Print or copy the certificate of the last erase."`
	Fetch       FetchCmd            `cmd:"" help:"Bring a release image onto the recovery volume, from a web server or a file."`
	SaveNetwork SaveNetworkCmd      `cmd:"" name:"save-network" help:"Keep the network configuration for a restore."`
	Support     SupportBundleCmd    `cmd:"" name:"support-bundle" help:"Write logs, history and an inventory for support staff into one file, without secrets."`
	Capture     CaptureCmd          `cmd:"" help:"Write what this machine is made of into one text file, without secrets."`
	SystemdUnit SystemdUnitCmd      `cmd:"" name:"systemd-unit" help:"Print a systemd unit of this program."`
	Install     InstallCmd          `cmd:"" help:"Put this program and its systemd units into a root filesystem."`

	Version kong.VersionFlag `help:"Print the build's revision and exit."`
}

// Context is what every verb gets.
type Context struct {
	context.Context
	Stdin io.Reader
	// Stdout and Stderr show what they get in a visible form, see package shown.
	Stdout, Stderr io.Writer
	// Terminal reports whether Stdin and Stdout are a terminal, so that a person can be asked.
	Terminal bool
	Site     site.Site
	// Root is the directory of the running system, "/" but in tests.
	Root string
	// System is what the verbs need of the operating system.
	System System
	// Version is the build's revision.
	Version string
}

// System is what the verbs need of the operating system, replaceable in tests.
type System struct {
	UID     func() int
	Now     func() time.Time
	Mounts  func() ([]host.MountInfo, error)
	Mount   func(source, target, fstype string, o host.MountOptions) error
	Remount func(target string, o host.MountOptions) error
	Run     func(ctx context.Context, path string, args ...string) (output []byte, exit int, err error)
	// StopWatchdog stops the watchdog at a device; watchdog.ErrBusy if somebody has it.
	StopWatchdog func(device string) error
	// Started tells whoever shows the start on the display that the system runs.
	Started func(ctx context.Context) error
}

// Real returns the System of the machine.
func Real() System {
	return System{UID: os.Geteuid, Now: time.Now, Mounts: host.Mounts, Mount: host.Mount, Remount: host.Remount, Run: host.Run, StopWatchdog: stopWatchdog, Started: splash.End}
}

// Main parses args, runs the verb and returns the exit status: 0 it holds or was done, 1 it does not hold or could not be
// done, 2 wrong usage. SIGINT and SIGTERM cancel the verb's context.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, s site.Site, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &Context{Context: ctx, Stdin: stdin, Stdout: stdout, Stderr: stderr, Terminal: terminal(stdin) && terminal(stdout), Site: s, Root: "/", System: Real()}
	return Run(c, args, version)
}

// exit is how kong's own help and version flags end the parse without ending the process.
type exit struct{ code int }

// Run is Main with everything passed in.
func Run(c *Context, args []string, version string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			e, ok := v.(exit)
			if !ok {
				panic(v)
			}
			code = e.code
		}
	}()
	c.Version = version
	stdout, stderr := shown.New(c.Stdout), shown.New(c.Stderr)
	c.Stdout, c.Stderr = stdout, stderr
	defer func() {
		if err := errors.Join(stdout.Flush(), stderr.Flush()); err != nil && code == 0 {
			code = 1
		}
	}()
	var commands Commands
	k, err := kong.New(&commands,
		kong.Name("gprov-unit"),
		kong.Description("The running system's side of a unit's recovery."),
		kong.Writers(c.Stdout, c.Stderr),
		kong.Exit(func(code int) { panic(exit{code}) }),
		kong.Vars{"version": "gprov-unit " + version},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		panic(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	verb, err := k.Parse(args)
	if err != nil {
		fmt.Fprintf(c.Stderr, "gprov-unit: %v\nhint: gprov-unit --help\n", err)
		return 2
	}
	if err := c.ownNames(); err != nil {
		fmt.Fprintf(c.Stderr, "warning: the unit's names cannot be read, going by the defaults: %s\n", shown.Line(err.Error()))
	}
	err = verb.Run(c)
	if err == nil {
		return 0
	}
	fmt.Fprintf(c.Stderr, "gprov-unit: %s\n", shown.Lines(err.Error()))
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintf(c.Stderr, "hint: %s\n", h.hint)
	} else if f := fault.Of(err); f != nil {
		fmt.Fprintf(c.Stderr, "hint: %s\n", f.Hint)
	}
	var u *usage
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

func terminal(x any) bool {
	f, ok := x.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// hinted is an error with a sentence that says what to do next.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// usage is an error that ends the program with status 2.
type usage struct{ error }

func (u *usage) Unwrap() error { return u.error }

// path returns a path inside the running system.
func (c *Context) path(name string) string { return filepath.Join(c.Root, name) }

// read reads a small file of the running system.
func (c *Context) read(name string, most int64) ([]byte, error) {
	r, err := os.OpenRoot(c.Root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return state.ReadFile(r, strings.TrimPrefix(name, "/"), most)
}

// ownNames makes the names count that the restore has left in the running system. One that has none was restored when there were only
// those of the Site.
func (c *Context) ownNames() error {
	b, err := c.read(c.Site.Names.ConfDir+"/"+sysroot.NamesFile, naming.MaxSize)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := naming.Parse(b)
	if err != nil {
		return err
	}
	c.Site.Names = c.Site.Names.Of(n)
	return nil
}

// mark returns the mark of the running system.
func (c *Context) mark() (state.Mark, error) {
	b, err := c.read(c.Site.Names.Mark, state.MaxMark)
	if err != nil {
		return state.Mark{}, err
	}
	return state.ParseMark(b)
}

// boot returns what init told about this boot.
func (c *Context) boot() (state.Boot, error) {
	b, err := c.read(state.BootFile, state.MaxBoot)
	if err != nil {
		return state.Boot{}, err
	}
	return state.ParseBoot(b)
}

// needRoot refuses to go on without root's rights.
func (c *Context) needRoot() error {
	if c.System.UID() != 0 {
		return &hinted{errors.New("only root may do this"), "run it with sudo"}
	}
	return nil
}

// recoveryDir is where the recovery volume is mounted.
func (c *Context) recoveryDir() string { return c.path(sysroot.RecoveryDir(c.Site.Names.Recovery)) }

// mounted returns the mount of the recovery volume, nil if it is not mounted.
func (c *Context) mounted() (*host.MountInfo, error) {
	all, err := c.System.Mounts()
	if err != nil {
		return nil, err
	}
	var found *host.MountInfo
	for i := range all {
		if all[i].Target == c.recoveryDir() {
			found = &all[i] // the last one is on top
		}
	}
	return found, nil
}

func options(readOnly bool) host.MountOptions {
	return host.MountOptions{ReadOnly: readOnly, NoSUID: true, NoDev: true, NoExec: true}
}

// view calls f with the recovery volume, which it mounts read-only if it is not mounted.
func (c *Context) view(f func(*state.Volume) error) error {
	if err := c.ensureMounted(); err != nil {
		return err
	}
	return f(state.Open(c.recoveryDir()))
}

// ensureMounted mounts the recovery volume read-only if it is not mounted.
func (c *Context) ensureMounted() error {
	m, err := c.mounted()
	if err != nil || m != nil {
		return err
	}
	dir := c.recoveryDir()
	source, err := c.source(dir)
	if err == nil {
		err = c.System.Mount(source, dir, "ext4", options(true))
	}
	if err != nil {
		return fault.Because(fault.NoRecovery, err)
	}
	return nil
}

// write calls f with the recovery volume writable, and makes it read-only again. Only one process at a time may do so: it
// waits for the other one. What takes long does not belong here, see writable.
func (c *Context) write(f func(*state.Volume) error) (err error) {
	l, err := c.lock("lock", syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer l.Close()
	release, err := c.writable()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return f(state.Open(c.recoveryDir()))
}

// writable makes the recovery volume writable until release is called. Several processes may have it so at a time: each holds a
// shared lock, and the last one makes the volume read-only again, if it was. The file of the lock reports whether it was.
func (c *Context) writable() (release func() error, err error) {
	l, err := c.lock("writers", syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	if err := c.makeWritable(l); err != nil {
		l.Close()
		return nil, err
	}
	return func() error {
		defer l.Close()
		if err := syscall.Flock(int(l.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil // others still write
		}
		if st, err := l.Stat(); err != nil || st.Size() == 0 {
			return err
		}
		if err := c.System.Remount(c.recoveryDir(), options(true)); err != nil {
			return fmt.Errorf("make the recovery volume read-only again: %w", err)
		}
		return l.Truncate(0)
	}, nil
}

func (c *Context) makeWritable(l *os.File) error {
	if err := c.ensureMounted(); err != nil {
		return err
	}
	m, err := c.mounted()
	if err != nil || m == nil || !m.ReadOnly {
		return err
	}
	if err := c.System.Remount(c.recoveryDir(), options(false)); err != nil {
		return fault.Because(fault.RecoveryDamaged, fmt.Errorf("make the recovery volume writable: %w", err))
	}
	_, err = l.WriteAt([]byte("ro\n"), 0)
	return err
}

// lock takes a lock that processes of this program share, and waits for it. Closing the file gives it back.
func (c *Context) lock(name string, how int) (*os.File, error) {
	dir := c.path(filepath.Dir(state.BootFile))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the recovery volume: %w", err)
		}
		select {
		case <-c.Done():
			f.Close()
			return nil, fmt.Errorf("lock the recovery volume: %w", c.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// source finds the device of the recovery volume by the line of fstab that the restore wrote.
func (c *Context) source(dir string) (string, error) {
	b, err := c.read("etc/fstab", 1<<20)
	if err != nil {
		return "", err
	}
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) < 3 || c.path(f[1]) != dir || strings.HasPrefix(f[0], "#") {
			continue
		}
		key, id, ok := strings.Cut(f[0], "=")
		kind, known := map[string]string{"PARTUUID": "by-partuuid", "UUID": "by-uuid"}[key]
		if !ok || !known || strings.Contains(id, "/") {
			continue
		}
		dev := filepath.Join("/dev/disk", kind, id)
		if _, err := os.Stat(c.path(dev)); err != nil {
			return "", fmt.Errorf("the device of the recovery volume is missing: %w", err)
		}
		return dev, nil
	}
	return "", errors.New("fstab does not name the recovery volume")
}

// missing reports whether err is that something is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
