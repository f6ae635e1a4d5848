package report

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gprovision/hw/durable"
	"gprovision/model/fault"
	"gprovision/unit/state"
)

// A resumable download keeps two files beside its destination: what has arrived, and a note that vouches for it. The
// note is written only after its bytes are on the device. So whatever a power cut leaves of the two, the bytes that
// the note covers have the hash in the note, or they are discarded.
const (
	partSuffix = ".part"
	noteSuffix = ".part.json"
	noteEvery  = 32 << 20 // bytes
	maxNote    = 16 << 10 // bytes
)

// note vouches for the first bytes of a file. docs/formats/recovery-volume.md describes it.
type note struct {
	Version int    `json:"version"`
	URL     string `json:"url"`
	ETag    string `json:"etag"`  // a strong ETag
	Total   int64  `json:"total"` // bytes of the whole file, 0: unknown
	Size    int64  `json:"size"`  // bytes on the device
	SHA256  string `json:"sha256"`
}

// parseNote parses a note. Like everything on a recovery volume, it is hostile input.
func parseNote(b []byte) (note, error) {
	var n note
	if err := json.Unmarshal(b, &n); err != nil {
		return note{}, fmt.Errorf("parse note of a download: %w", err)
	}
	strong := len(n.ETag) > 2 && n.ETag[0] == '"' && strings.IndexByte(n.ETag[1:], '"') == len(n.ETag)-2
	switch {
	case n.Version != 1:
		return note{}, fmt.Errorf("parse note of a download: version %d", n.Version)
	case !strong || strings.ContainsFunc(n.ETag, func(r rune) bool { return r < ' ' || r > '~' }):
		return note{}, fmt.Errorf("parse note of a download: ETag %q", n.ETag)
	case n.Size <= 0 || n.Total != 0 && n.Total < n.Size:
		return note{}, fmt.Errorf("parse note of a download: %d of %d bytes", n.Size, n.Total)
	}
	return n, nil
}

// openPart opens Dest.part. The file is empty, or, with Resume, holds what an earlier call left and its note vouches
// for.
func (t *transfer) openPart(ctx context.Context) error {
	part := t.o.Dest + partSuffix
	if t.o.Resume {
		err := t.resumePart(ctx, part)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.o.Log.Info("download begins anew", "file", part, "because", err.Error())
		}
	}
	if err := RemovePart(t.o.Dest); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fault.Because(diskFault(err), err)
	}
	t.f = f
	return nil
}

// resumePart opens what an earlier call left, hashes it again and cuts off what the note does not vouch for.
func (t *transfer) resumePart(ctx context.Context, part string) error {
	dir, err := os.OpenRoot(filepath.Dir(part))
	if err != nil {
		return err
	}
	defer dir.Close()
	b, err := state.ReadFile(dir, filepath.Base(t.o.Dest)+noteSuffix, maxNote)
	if err != nil {
		return err
	}
	n, err := parseNote(b)
	if err != nil {
		return err
	}
	switch {
	case n.URL != t.o.URL:
		return fmt.Errorf("it was from %s", n.URL)
	case t.o.Size > 0 && n.Total != t.o.Size, n.Size > t.o.MaxSize:
		return fmt.Errorf("it was %d of %d bytes, wanted are %d", n.Size, n.Total, t.o.Size)
	}
	f, err := os.OpenFile(part, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		_, err = io.CopyBuffer(io.MultiWriter(t.s256, t.s1), contextReader{ctx, io.NewSectionReader(f, 0, n.Size)}, make([]byte, 1<<20))
	}
	if err == nil && (st.Size() < n.Size || hex.EncodeToString(t.s256.Sum(nil)) != n.SHA256) {
		err = errors.New("the bytes are not those of the note")
	}
	if err == nil {
		err = f.Truncate(n.Size)
	}
	if err != nil {
		f.Close()
		t.s256.Reset()
		t.s1.Reset()
		return err
	}
	t.f, t.at, t.noted, t.total, t.etag = f, n.Size, n.Size, n.Total, n.ETag
	t.o.Log.Info("download is taken up", "file", part, "bytes", t.at, "total", t.total)
	t.o.Progress(t.at, t.total)
	return nil
}

// writeNote makes what has arrived survive a power cut. If it cannot write the note, the only cost is another download.
func (t *transfer) writeNote() {
	if !t.o.Resume || t.etag == "" || t.at == t.noted || t.at == t.total { // no range can be requested beyond the end
		return
	}
	err := t.f.Sync()
	var b []byte
	if err == nil {
		b, err = json.Marshal(note{Version: 1, URL: t.o.URL, ETag: t.etag, Total: t.total, Size: t.at, SHA256: hex.EncodeToString(t.s256.Sum(nil))})
	}
	if err == nil {
		var dir *os.Root
		if dir, err = os.OpenRoot(filepath.Dir(t.o.Dest)); err == nil {
			err = durable.WriteIn(dir, filepath.Base(t.o.Dest)+noteSuffix, append(b, '\n'), durable.Owner{Mode: 0o600})
			err = errors.Join(err, dir.Close())
		}
	}
	if err != nil {
		t.o.Log.Warn("download cannot be taken up later", "url", t.o.URL, "err", err)
		t.o.Resume = false
		return
	}
	t.noted = t.at
}

// Parts returns the names of the files in dir whose download was interrupted, sorted.
func Parts(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name, note := strings.CutSuffix(e.Name(), noteSuffix)
		part := false
		if !note {
			name, part = strings.CutSuffix(e.Name(), partSuffix)
		}
		if (note || part) && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// RemovePart removes what an interrupted download to dest left, if anything.
func RemovePart(dest string) error {
	var all error
	for _, suffix := range []string{noteSuffix, partSuffix} {
		if err := os.Remove(dest + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}
