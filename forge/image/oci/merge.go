package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"gprovision/hw/filesystem"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	aufs     = ".wh..wh." // other files of aufs: not part of the system
)

// source is an entry of a layer that holds something: a file, a link, a device, a directory's owner and mode.
type source struct {
	layer, index int
	header       *tar.Header
	names        []string // under which it is in the merged system
}

// node is a path of the merged system.
type node struct {
	src      *source // nil for a directory that no layer describes
	children map[string]*node
}

func (n *node) isDir() bool { return n.src == nil || n.src.header.Typeflag == tar.TypeDir }

// merged knows what wins each path.
type merged struct {
	root  *node
	wins  []map[int]*source // by layer, then by number of the entry
	total int
}

// maxEntries bounds the memory that the headers of a hostile image take.
const maxEntries = 4 << 20

// merge reads the headers of all layers.
func (im *Image) merge(ctx context.Context) (*merged, error) {
	m := &merged{root: &node{children: map[string]*node{}}}
	for i, l := range im.layers {
		if err := m.layer(ctx, im, i, l); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(im.layers), err)
		}
	}
	m.wins = make([]map[int]*source, len(im.layers))
	for i := range m.wins {
		m.wins[i] = map[int]*source{}
	}
	m.name(m.root, "")
	return m, nil
}

// name gives each source its names, sorted, and marks it as a winner.
func (m *merged) name(n *node, at string) {
	if s := n.src; s != nil {
		if at == "" {
			at = "."
		}
		s.names = append(s.names, at)
		m.wins[s.layer][s.index] = s
	}
	if at == "." {
		at = ""
	}
	for _, k := range slices.Sorted(maps.Keys(n.children)) {
		m.name(n.children[k], path.Join(at, k))
	}
}

// layer puts one layer on top of those before. Its whiteouts are for the layers below only, wherever they stand in it.
func (m *merged) layer(ctx context.Context, im *Image, number int, l layer) error {
	r, err := im.openLayer(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	var entries []*source
	tr := filesystem.NewTarReader(r)
	for index := 0; ; index++ {
		h, _, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return r.broken(err)
		}
		if m.total++; m.total > maxEntries {
			return fmt.Errorf("more than %d entries: %w", maxEntries, ErrDamaged)
		}
		entries = append(entries, &source{layer: number, index: index, header: h})
	}
	if err := r.finish(); err != nil {
		return err
	}
	var own []*source
	for _, e := range entries {
		done, err := m.whiteout(e.header)
		if err != nil {
			return fmt.Errorf("entry %q: %w: %w", e.header.Name, ErrDamaged, err)
		}
		if !done {
			own = append(own, e)
		}
	}
	for _, e := range own {
		if err := m.put(e); err != nil {
			return fmt.Errorf("entry %q: %w: %w", e.header.Name, ErrDamaged, err)
		}
	}
	return nil
}

// whiteout takes away what an entry says is gone. It reports whether the entry was one that says so.
func (m *merged) whiteout(h *tar.Header) (bool, error) {
	name, err := entryName(h.Name)
	if err != nil {
		return false, err
	}
	base := path.Base(name)
	if !strings.HasPrefix(base, whiteout) {
		// What lies below a directory of aufs's own is not part of the system either.
		return strings.HasPrefix(name, aufs) || strings.Contains(name, "/"+aufs), nil
	}
	dir, err := m.find(path.Dir(name), false)
	if err != nil || dir == nil || dir.children == nil {
		return true, err
	}
	switch {
	case base == opaque:
		clear(dir.children)
	case strings.HasPrefix(base, aufs):
	case base == whiteout:
		return true, errors.New("a whiteout of nothing")
	default:
		delete(dir.children, strings.TrimPrefix(base, whiteout))
	}
	return true, nil
}

// entryName is the name of an entry without "./". Docker writes names that begin with a slash now and then.
func entryName(name string) (string, error) {
	return filesystem.EntryName(strings.TrimLeft(name, "/") + map[bool]string{true: "."}[strings.Trim(name, "/") == ""])
}

// find returns the directory of a name, and follows symbolic links as the running system would. With create, directories that
// are missing are made; without, nil says that there is none.
func (m *merged) find(name string, create bool) (*node, error) {
	left := strings.Split(name, "/")
	at := []*node{m.root}
	for links := 0; len(left) > 0; {
		part, here := left[0], at[len(at)-1]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		next, ok := here.children[part]
		switch {
		case !ok && !create:
			return nil, nil
		case !ok:
			next = &node{children: map[string]*node{}}
			here.children[part] = next
		case next.src != nil && next.src.header.Typeflag == tar.TypeSymlink:
			if links++; links > 40 {
				return nil, errors.New("too many symbolic links")
			}
			to := next.src.header.Linkname
			if strings.HasPrefix(to, "/") {
				at = at[:1]
			}
			left = append(strings.Split(to, "/"), left...)
			continue
		case !next.isDir() && !create:
			return nil, nil
		case !next.isDir():
			return nil, fmt.Errorf("%s is not a directory", part)
		}
		at = append(at, next)
	}
	return at[len(at)-1], nil
}

// put adds an entry.
func (m *merged) put(s *source) error {
	name, err := entryName(s.header.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if s.header.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		m.root.src = s
		return nil
	}
	dir, err := m.find(path.Dir(name), true)
	if err != nil {
		return err
	}
	base := path.Base(name)
	old := dir.children[base]
	switch s.header.Typeflag {
	case tar.TypeDir:
		if old != nil && old.isDir() {
			old.src = s
			return nil
		}
		dir.children[base] = &node{src: s, children: map[string]*node{}}
		return nil
	case tar.TypeLink:
		to, err := entryName(s.header.Linkname)
		if err != nil {
			return err
		}
		target, err := m.find(path.Dir(to), false)
		if err != nil {
			return err
		}
		if target == nil || target.children[path.Base(to)] == nil || target.children[path.Base(to)].isDir() {
			return fmt.Errorf("hard link to %q, which is not a file before it", s.header.Linkname)
		}
		s = target.children[path.Base(to)].src
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("unknown type %q", s.header.Typeflag)
	}
	dir.children[base] = &node{src: s}
	return nil
}

// Open gives the merged root filesystem as a tar stream in the PAX format. Each path is in it once; the order is that of the
// layers, and the same each time. All digests are checked on the way: trust nothing before io.EOF. The caller closes it.
func (im *Image) Open(ctx context.Context) (io.ReadCloser, error) {
	m, err := im.merge(ctx)
	if err != nil {
		return nil, fmt.Errorf("read OCI image: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	s := &stream{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		tw := filesystem.NewTarWriter(pw)
		err := m.emit(ctx, im, tw)
		if err == nil {
			err = tw.Close()
		}
		if err != nil {
			err = fmt.Errorf("read OCI image: %w", err)
		}
		pw.CloseWithError(err)
	}()
	return s, nil
}

// stream is a tar that is being written.
type stream struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the writing, and waits for it.
func (s *stream) Close() error {
	s.cancel()
	s.PipeReader.Close()
	<-s.done
	return nil
}

// emit writes the winners of all layers.
func (m *merged) emit(ctx context.Context, im *Image, tw *filesystem.TarWriter) error {
	for i, l := range im.layers {
		if len(m.wins[i]) == 0 {
			continue
		}
		if err := m.emitLayer(ctx, im, i, l, tw); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(im.layers), err)
		}
	}
	return nil
}

func (m *merged) emitLayer(ctx context.Context, im *Image, number int, l layer, tw *filesystem.TarWriter) error {
	r, err := im.openLayer(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	tr := filesystem.NewTarReader(r)
	for index := 0; ; index++ {
		h, content, err := tr.Next()
		if err == io.EOF {
			return r.finish()
		}
		if err != nil {
			return r.broken(err)
		}
		s, ok := m.wins[number][index]
		if !ok {
			continue
		}
		if h.Typeflag != s.header.Typeflag || h.Size != s.header.Size || h.Name != s.header.Name {
			return fmt.Errorf("entry %q changed while it was read: %w", h.Name, ErrDamaged)
		}
		if err := emitEntry(tw, h, content, s.names); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

// emitEntry writes an entry under its first name, and hard links to it under the others. Holes stay holes.
func emitEntry(tw *filesystem.TarWriter, h *tar.Header, content io.Reader, names []string) error {
	out := *h
	// The numbers count. Times of access and change would be those of the build.
	out.Uname, out.Gname, out.AccessTime, out.ChangeTime = "", "", time.Time{}, time.Time{}
	out.Name = names[0]
	if h.Typeflag == tar.TypeDir {
		out.Name += "/"
	}
	if err := tw.Write(&out, content); err != nil {
		return err
	}
	for _, n := range names[1:] {
		l := tar.Header{Name: n, Typeflag: tar.TypeLink, Linkname: names[0], Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime}
		if err := tw.Write(&l, nil); err != nil {
			return err
		}
	}
	return nil
}
