package release

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"
)

// MetaPath is the first entry of an image's tar.
const MetaPath = "etc/provisioning/imgmeta.json"

// MetaVersion is the version of imgmeta.json that is written.
const MetaVersion = 1

// maxMeta is how many decompressed bytes are searched for imgmeta.json, and its greatest size.
const maxMeta = 1 << 20

// ErrNoMeta says that an image does not begin with imgmeta.json. Images of the original system need not have it.
var ErrNoMeta = errors.New("the image has no " + MetaPath + " at its beginning")

// ErrRenamed says that an image was made under another name than its file has now.
var ErrRenamed = errors.New("the image was renamed")

// Meta is the content of imgmeta.json. The first six fields are the original system's, texts all of them; the others are ours.
type Meta struct {
	BinVer    string `json:"BinVer,omitempty"`    // version of the program that made the image
	BinTime   string `json:"BinTime,omitempty"`   // build time as YYMMDDhhmm, UTC
	ImportJob string `json:"ImportJob,omitempty"` // build job that made the input
	ImgJob    string `json:"ImgJob,omitempty"`    // build job that made the image
	ImgName   string `json:"ImgName,omitempty"`   // file name
	Stream    string `json:"Stream,omitempty"`    // tier; "main_systest" is the default one

	Version   int       `json:"version,omitempty"`   // of this format; 0 for an image of the original system
	Name      string    `json:"name,omitempty"`      // full name without ".upd", equal to the file's name
	Build     uint64    `json:"build,omitempty"`     // build number of the name
	Time      time.Time `json:"time,omitzero"`       // when the image was made, UTC
	Source    string    `json:"source,omitempty"`    // what it was made from, as text for people
	BootBuild uint64    `json:"bootBuild,omitempty"` // build number of boot/norm_boot
	Entries   int64     `json:"entries,omitempty"`   // entries in the tar, this one left out
	Bytes     int64     `json:"bytes,omitempty"`     // sum of the sizes of its files
	Packages  Packages  `json:"packages,omitzero"`   // installed Debian packages

	// Inodes and Blocks (of 4096 bytes) are what the tree takes of an ext4 filesystem. They are there only if each entry was judged by
	// the code that unpacks, and taken.
	Inodes int64 `json:"inodes,omitempty"`
	Blocks int64 `json:"blocks,omitempty"`
}

// Judged reports whether who made the image says that it can be unpacked, and what it needs. That counts where the image is signed.
func (m Meta) Judged() bool { return m.Version > 0 && m.Inodes > 0 && m.Blocks > 0 }

// Packages says which packages an image has, as a digest to compare images by.
type Packages struct {
	Count int `json:"count"`
	// SHA256 is the hash, in hexadecimal, of the sorted lines "NAME ARCH VERSION\n".
	SHA256 string `json:"sha256"`
}

// ParseMeta reads imgmeta.json. Unknown keys are ignored.
func ParseMeta(b []byte) (Meta, error) {
	var m Meta
	if len(b) > maxMeta {
		return m, fmt.Errorf("parse imgmeta.json: %d bytes, at most %d", len(b), maxMeta)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, fmt.Errorf("parse imgmeta.json: %w", err)
	}
	if m.Version < 0 || m.Version > MetaVersion {
		return Meta{}, fmt.Errorf("parse imgmeta.json: version %d is not known, the newest is %d", m.Version, MetaVersion)
	}
	return m, nil
}

// Marshal returns m as indented JSON.
func (m Meta) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write imgmeta.json: %w", err)
	}
	return append(b, '\n'), nil
}

// ReadMeta reads the description of an image from the beginning of its tar (what NewReader gives). The first regular file must
// be it, at any path that ends so, within the first mebibyte. ErrNoMeta means that it is not there. r is read a little beyond.
func ReadMeta(r io.Reader) (Meta, error) {
	l := &io.LimitedReader{R: r, N: maxMeta}
	tr := tar.NewReader(l)
	for {
		h, err := tr.Next()
		if l.N <= 0 || err == io.EOF {
			return Meta{}, ErrNoMeta
		}
		if err != nil {
			return Meta{}, fmt.Errorf("read %s: %w", MetaPath, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if !IsMeta(h.Name) || h.Size > maxMeta {
			return Meta{}, ErrNoMeta
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return Meta{}, fmt.Errorf("read %s: %w", MetaPath, err)
		}
		return ParseMeta(b)
	}
}

// ReadMetaAt is ReadMeta for the image src of size bytes. It decodes no more than the beginning.
func ReadMetaAt(ctx context.Context, src io.ReaderAt, size int64) (Meta, error) {
	r, err := NewReader(ctx, src, size, 1)
	if err != nil {
		return Meta{}, err
	}
	defer r.Close()
	return ReadMeta(r)
}

// MaxBytes is the greatest sum of the sizes of all files, holes counted, that an image with this description may hold, its own
// length with it. 0: no limit is known, as in images of the original system.
func (m Meta) MaxBytes() int64 {
	if m.Version == 0 {
		return 0
	}
	return min(max(m.Bytes, 0), math.MaxInt64-maxMeta) + maxMeta
}

// IsMeta reports whether a tar entry's name is that of imgmeta.json.
func IsMeta(name string) bool {
	name = path.Clean("/" + name)
	return strings.HasSuffix(name, "/"+MetaPath)
}

// CheckName returns an error unless an image may bear the file name n. Where m has a full name (version 1), it must be that one, so that
// a renamed image is found out; images of the original system have none. The error wraps
// ErrRenamed.
func (m Meta) CheckName(n Name) error {
	if m.Version == 0 {
		return nil
	}
	if m.Name != n.Base() {
		return fmt.Errorf("%w: it was made as %q, and its file is called %s", ErrRenamed, m.Name, n)
	}
	if m.Build != n.Build {
		return fmt.Errorf("%w: it was made as build %d, and its file is called %s", ErrRenamed, m.Build, n)
	}
	return nil
}
