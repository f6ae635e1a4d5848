// Package support makes the bundle that support staff ask for: logs, history, counts, an inventory of the machine and what
// the caller adds, in one tar.gz. It reads and changes nothing.
//
// There is no secret in it: only files on a list are taken, the password's hash and the unit's key are not among them, and
// whatever looks like a hash, a key, a token or a password in a text is replaced by "[secret]".
//
// Format, version 1: a directory support/ with index.json, which names the other files and what is missing.
package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"gprovision/model/capture"
	"gprovision/unit/state"
)

// Version is the version of the bundle's format, in index.json.
const Version = 1

// The most bytes that one file of a bundle, and all files of one, may have.
const (
	maxFile = 16 << 20
	maxAll  = 256 << 20
)

// File is one file of a bundle.
type File struct {
	// Name is its path in the bundle, with slashes, below support/.
	Name string
	Data []byte
}

// Options says what goes into a bundle.
type Options struct {
	// Volume is the mounted recovery volume. It is nil if there is none.
	Volume *state.Volume
	// Sys and Proc are /sys and /proc. Without them there is no inventory.
	Sys, Proc fs.FS
	// Files are what the caller knows beside that, such as an excerpt of the journal.
	Files []File
	// Missing says what the caller could not get, and why.
	Missing []string
	// By names the program that makes the bundle, with its version.
	By string
	// Now is the time of the bundle.
	Now time.Time
}

// Name returns the file name of the bundle of a unit.
func Name(serial string, now time.Time) string {
	serial = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, serial)
	if serial == "" {
		serial = "unknown"
	}
	return "support-" + serial[:min(len(serial), 64)] + "-" + now.UTC().Format("20060102T150405Z") + ".tar.gz"
}

// index is index.json.
type index struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`
	Files   []entry   `json:"files"`
	Missing []string  `json:"missing,omitempty"`
}

type entry struct {
	Name string `json:"name"`
	Size int    `json:"size"` // bytes
}

// Write writes a bundle to w. What cannot be read is left out and named in index.json: only a failure of w, or the end of ctx, is
// an error.
func Write(ctx context.Context, w io.Writer, o Options) error {
	z := gzip.NewWriter(w)
	b := &bundle{ctx: ctx, tar: tar.NewWriter(z), now: o.Now, clean: newCleaner(o.Volume), index: index{Version: Version, Created: o.Now.UTC(), By: o.By, Files: []entry{}, Missing: slices.Clone(o.Missing)}}
	if o.Volume != nil {
		b.volume(o.Volume)
	} else {
		b.miss("the recovery volume is not there")
	}
	b.inventory(o)
	for _, f := range o.Files {
		b.add(f.Name, f.Data)
	}
	b.finish()
	for _, c := range []io.Closer{b.tar, z} {
		if b.err == nil {
			b.err = c.Close()
		}
	}
	if b.err != nil {
		return fmt.Errorf("write support bundle: %w", b.err)
	}
	return nil
}

type bundle struct {
	ctx   context.Context
	tar   *tar.Writer
	now   time.Time
	clean *cleaner
	index index
	all   int
	err   error // the first of w or ctx
}

func (b *bundle) miss(format string, a ...any) {
	b.index.Missing = append(b.index.Missing, b.clean.text(fmt.Sprintf(format, a...)))
}

// add writes one file, without its secrets.
func (b *bundle) add(name string, data []byte) {
	if b.err == nil {
		b.err = b.ctx.Err()
	}
	data = b.clean.bytes(data)
	switch {
	case b.err != nil:
		return
	case !fs.ValidPath(name):
		b.miss("%q: not a name for a file", name)
		return
	case len(data) > maxFile || b.all+len(data) > maxAll:
		b.miss("%s: %d bytes are too many", name, len(data))
		return
	}
	b.all += len(data)
	b.index.Files = append(b.index.Files, entry{name, len(data)})
	b.put(name, data)
}

func (b *bundle) put(name string, data []byte) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join("support", name), Size: int64(len(data)), Mode: 0o600, ModTime: b.now.UTC().Truncate(time.Second)}
	if b.err = b.tar.WriteHeader(h); b.err == nil {
		_, b.err = b.tar.Write(data)
	}
}

func (b *bundle) finish() {
	if b.err != nil {
		return
	}
	text, err := json.MarshalIndent(b.index, "", "  ")
	if err != nil {
		b.err = err
		return
	}
	b.put("index.json", append(text, '\n'))
}

// volume adds the logs, the history and the state of the recovery volume, and a list of its images.
func (b *bundle) volume(v *state.Volume) {
	root, err := os.OpenRoot(v.Path())
	if err != nil {
		b.miss("recovery volume: %v", err)
		return
	}
	defer root.Close()
	for _, name := range []string{state.UnitFile, state.RequestFile, state.CountsFile, state.RestoreDataFile} {
		b.file(root, name)
	}
	logs, err := fs.ReadDir(root.FS(), state.LogDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.miss("logs: %v", err)
	}
	for _, e := range logs {
		if e.Type().IsRegular() && (strings.HasSuffix(e.Name(), ".log") || strings.HasPrefix(e.Name(), path.Base(state.HistoryFile))) {
			b.file(root, path.Join(state.LogDir, e.Name()))
		}
	}
	var list bytes.Buffer
	images, err := fs.ReadDir(root.FS(), state.ImageDir)
	if err != nil {
		b.miss("images: %v", err)
		return
	}
	for _, e := range images {
		if info, err := e.Info(); err == nil {
			fmt.Fprintf(&list, "%s %12d %s %q\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), e.Name())
		}
	}
	b.add("images.txt", list.Bytes())
}

func (b *bundle) file(root *os.Root, name string) {
	data, err := state.ReadFile(root, name, maxFile)
	switch {
	case err == nil:
		b.add(path.Join("recovery", name), data)
	case !errors.Is(err, fs.ErrNotExist):
		b.miss("%v", err)
	}
}

// inventory adds a capture of the machine (gprov platform identify reads it).
func (b *bundle) inventory(o Options) {
	if o.Sys == nil || o.Proc == nil {
		return
	}
	text, missed, err := capture.Take(o.Sys, o.Proc, "support")
	for _, m := range missed {
		b.miss("%s cannot be read", m)
	}
	if err != nil {
		b.miss("inventory: %v", err)
		return
	}
	b.add("capture.txt", text)
	for _, name := range []string{"cmdline", "mounts", "uptime", "modules"} {
		if data, err := fs.ReadFile(o.Proc, name); err == nil {
			b.add("proc/"+name, data)
		}
	}
}
