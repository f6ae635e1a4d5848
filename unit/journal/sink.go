package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Filter selects the records that a console shows.
type Filter struct {
	// Level is the lowest level to show.
	Level slog.Level
	// PersonOnly shows only errors and the records for the person at the machine.
	PersonOnly bool
}

// Console returns a sink for people that writes each record to w as one line of text. It does not close w.
func Console(w io.Writer, f Filter) Sink { return &console{w: w, f: f} }

type console struct {
	w io.Writer
	f Filter
}

func (c *console) Accepts(r Record) bool {
	return r.Level >= c.f.Level && (!c.f.PersonOnly || r.Person || r.Level >= slog.LevelError)
}

func (c *console) Write(r Record) error {
	_, err := io.WriteString(c.w, r.Time.UTC().Format("15:04:05.000 ")+r.Text()+"\n")
	return err
}

// PortName is the name of the virtio-serial port on which a virtual unit reports its events to a lab.
const PortName = "org.gprovision.events"

// EventPort returns a sink that writes each record to w as one JSON line. It leaves out records marked Passing. It closes
// w if w is an io.Closer.
func EventPort(w io.Writer) Sink { return &lines{w: w} }

type lines struct {
	w   io.Writer
	buf []byte
}

func (l *lines) Accepts(r Record) bool { return !r.Passing }

func (l *lines) Write(r Record) error {
	l.buf = append(r.appendJSON(l.buf[:0]), '\n')
	_, err := l.w.Write(l.buf)
	return err
}

func (l *lines) Close() error {
	if c, ok := l.w.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// FindPort returns the device of the virtio-serial port with the given name, such as /dev/vport1p1. It looks in
// class/virtio-ports/*/name in sysfs. ok is false if there is no such port. The device comes from devtmpfs, so no
// udev is needed.
func FindPort(sys fs.FS, name string) (devPath string, ok bool) {
	found, err := fs.Glob(sys, "class/virtio-ports/*/name")
	if err != nil {
		return "", false
	}
	for _, p := range found {
		b, err := fs.ReadFile(sys, p)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + strings.Split(p, "/")[2], true
		}
	}
	return "", false
}

// DefaultCap is the default limit for all logs of a directory together, in bytes.
const DefaultCap = 64 << 20

// FileOptions say how File names and limits its logs.
type FileOptions struct {
	// Prefix starts the name of each file, such as "provision", "recov" or "init". It consists of lower-case letters
	// and underscores.
	Prefix string
	// Cap limits all logs in the directory together, in bytes. The default is DefaultCap. A file ends once it has an
	// eighth of that.
	Cap int64
	// Now is the clock for file names. The default is time.Now.
	Now func() time.Time
}

// File returns a sink that writes JSON lines to a new file PREFIXyyyymmdd_hhmmss.log in the directory dir. It makes
// dir if it is missing, but the parent must exist. dir must not be a link out of its parent. When the logs there
// exceed the cap, it deletes the oldest. It never touches files with other names. It leaves out records marked
// Passing. Warnings, errors and records for the person are synced at once.
func File(dir string, o FileOptions) (Sink, error) {
	if !prefixForm.MatchString(o.Prefix) {
		return nil, fmt.Errorf("open log in %s: prefix %q is not made of lower-case letters and underscores", dir, o.Prefix)
	}
	if o.Cap <= 0 {
		o.Cap = DefaultCap
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer parent.Close()
	base := filepath.Base(dir)
	if err := parent.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open log: %w", err)
	}
	root, err := parent.OpenRoot(base)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	f := &file{root: root, o: o}
	if err := f.rotate(); err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

var (
	prefixForm = regexp.MustCompile(`^[a-z][a-z_]{0,31}$`)
	fileForm   = regexp.MustCompile(`^[a-z][a-z_]{0,31}([0-9]{8}_[0-9]{6})(?:-([0-9]{1,4}))?\.log$`)
)

type file struct {
	root *os.Root
	o    FileOptions
	f    *os.File
	name string
	size int64 // of the current file
	rest int64 // of all other logs
	buf  []byte
}

func (f *file) Accepts(r Record) bool { return !r.Passing }

func (f *file) Write(r Record) error {
	f.buf = append(r.appendJSON(f.buf[:0]), '\n')
	n := int64(len(f.buf))
	if f.f == nil || f.size > 0 && f.size+n > f.o.Cap/8 {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	if f.rest+f.size+n > f.o.Cap {
		if err := f.prune(n); err != nil {
			return err
		}
	}
	w, err := f.f.Write(f.buf)
	f.size += int64(w)
	if err != nil {
		// Cut off a partial line, so that the file stays readable.
		if w > 0 && f.f.Truncate(f.size-int64(w)) == nil {
			f.size -= int64(w)
			f.f.Seek(f.size, io.SeekStart)
		}
		return err
	}
	if r.Person || r.Level >= slog.LevelWarn {
		return f.f.Sync()
	}
	return nil
}

// rotate closes the current file and starts another.
func (f *file) rotate() error {
	if f.f != nil {
		f.f.Sync()
		f.f.Close()
		f.f = nil
	}
	stamp := f.o.Prefix + f.o.Now().UTC().Format("20060102_150405")
	name := stamp + ".log"
	for i := 2; ; i++ {
		h, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			f.f, f.name, f.size = h, name, 0
			break
		}
		if !errors.Is(err, fs.ErrExist) || i > 9999 {
			return fmt.Errorf("open log: %w", err)
		}
		name = fmt.Sprintf("%s-%d.log", stamp, i)
	}
	if d, err := f.root.Open("."); err == nil {
		d.Sync()
		d.Close()
	}
	return f.prune(0)
}

// prune deletes the oldest other logs until there is room for n more bytes.
func (f *file) prune(n int64) error {
	d, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	list, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	type old struct {
		name, stamp, more string
		size              int64
	}
	var logs []old
	f.rest = 0
	for _, e := range list {
		m := fileForm.FindStringSubmatch(e.Name())
		if m == nil || e.Name() == f.name || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil {
			logs = append(logs, old{e.Name(), m[1], fmt.Sprintf("%4s", m[2]), st.Size()})
			f.rest += st.Size()
		}
	}
	slices.SortFunc(logs, func(a, b old) int { return strings.Compare(a.stamp+a.more+a.name, b.stamp+b.more+b.name) })
	for _, l := range logs {
		if f.rest+f.size+n <= f.o.Cap {
			break
		}
		if err := f.root.Remove(l.name); err != nil {
			return fmt.Errorf("delete old log: %w", err)
		}
		f.rest -= l.size
	}
	if f.size+n > f.o.Cap {
		return fmt.Errorf("log %s has no room for %d bytes", f.name, n)
	}
	return nil
}

func (f *file) Flush() error {
	if f.f == nil {
		return nil
	}
	return f.f.Sync()
}

func (f *file) Close() error {
	var err error
	if f.f != nil {
		err = errors.Join(f.f.Sync(), f.f.Close())
		f.f = nil
	}
	return errors.Join(err, f.root.Close())
}
