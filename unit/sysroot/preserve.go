package sysroot

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/unit/state"
)

// PreservedFlag is a file among the network files that a restore preserved. It tells configuration management that
// they are the unit's own and not the image's.
const PreservedFlag = ".config-preserved"

// Limits of a saved network configuration.
const (
	maxNetworkFile  = 64 << 10 // bytes
	maxNetworkFiles = 128
)

// networkRecord is network.json in the directory of facts. It records what the restore left in /etc/systemd/network,
// to tell later changes by a person from what an image brought.
type networkRecord struct {
	Version   int               `json:"version"`
	Preserved bool              `json:"preserved,omitempty"` // the restore preserved the unit's own files
	Files     map[string]string `json:"files"`               // name to SHA-256 in hexadecimal
}

// ErrNoNetworkRecord means that nothing shows what a system's network files were after its restore.
var ErrNoNetworkRecord = errors.New("the system has no record of its network files")

// OwnNetwork returns the network files of the system if they are the unit's own: changed since the restore, or
// preserved by it. Otherwise files is nil. left has an error for each file that cannot be kept. confDir is the
// directory of facts.
//
// The error is ErrNoNetworkRecord for a system that no restore wrote. Nothing is known about its files.
func (s *System) OwnNetwork(confDir string) (files []File, left []error, err error) {
	all, left, err := s.networkFiles()
	if err != nil {
		return nil, nil, err
	}
	record, err := s.readNetworkRecord(confDir)
	if err != nil {
		return nil, nil, err
	}
	if !record.Preserved && maps.Equal(record.Files, sums(all)) {
		return nil, nil, nil
	}
	for _, f := range all {
		if err := CheckNetworkFile(f); err != nil {
			left = append(left, err)
			continue
		}
		files = append(files, f)
	}
	if !hasNetwork(files) {
		return nil, left, nil
	}
	return files, left, nil
}

// hasNetwork reports whether any of the files configures an interface. Without one a system would be unreachable.
func hasNetwork(files []File) bool {
	return slices.ContainsFunc(files, func(f File) bool { return strings.HasSuffix(f.Name, ".network") && len(f.Content) > 0 })
}

// networkFiles reads the files that systemd-networkd and udev read, sorted by name. A link to /dev/null hides a file
// of the image and counts as an empty file. Other links are followed inside the system.
func (s *System) networkFiles() (files []File, left []error, err error) {
	dir, err := s.openDir(networkDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	list, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		if e.IsDir() && strings.HasSuffix(e.Name(), ".d") {
			left = append(left, fmt.Errorf("%s: files that change parts of others are not kept, put them into one", e.Name()))
		}
		if !networkSuffix(e.Name()) {
			continue
		}
		if len(files) == maxNetworkFiles {
			return nil, nil, fmt.Errorf("%s has more than %d network files", networkDir, maxNetworkFiles)
		}
		if e.Type()&fs.ModeSymlink != 0 {
			if target, err := dir.Readlink(e.Name()); err == nil && target == "/dev/null" {
				files = append(files, File{Name: e.Name()})
				continue
			}
		} else if !e.Type().IsRegular() {
			left = append(left, fmt.Errorf("%s is not a regular file", e.Name()))
			continue
		}
		b, err := s.readFile(networkDir+"/"+e.Name(), maxNetworkFile)
		if err != nil {
			left = append(left, err)
			continue
		}
		files = append(files, File{e.Name(), b})
	}
	return files, left, nil
}

func sums(files []File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		sum := sha256.Sum256(f.Content)
		out[f.Name] = hex.EncodeToString(sum[:])
	}
	return out
}

func (s *System) readNetworkRecord(confDir string) (networkRecord, error) {
	b, err := s.read(path.Join(strings.Trim(confDir, "/"), "network.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return networkRecord{}, ErrNoNetworkRecord
	}
	if err != nil {
		return networkRecord{}, err
	}
	var r networkRecord
	if err := json.Unmarshal(b, &r); err != nil || r.Version < 1 || r.Version > state.Version {
		return networkRecord{}, ErrNoNetworkRecord
	}
	if r.Files == nil {
		r.Files = map[string]string{}
	}
	return r, nil
}

// recordNetwork writes network.json. It is the last step of setting up the network.
func (s *System) recordNetwork(confDir string, preserved bool) error {
	files, _, err := s.networkFiles()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(networkRecord{Version: state.Version, Preserved: preserved, Files: sums(files)}, "", "  ")
	if err != nil {
		return err
	}
	return s.writeIn(confDir, "network.json", append(b, '\n'))
}

// preserveNetwork makes the files the only ones in /etc/systemd/network.
func (s *System) preserveNetwork(files []File) error {
	if err := s.emptyDir(networkDir); err != nil {
		return err
	}
	for _, f := range files {
		if err := s.write(networkDir+"/"+f.Name, f.Content, 0o644); err != nil {
			return err
		}
	}
	return s.write(networkDir+"/"+PreservedFlag, nil, 0o644)
}

// emptyDir empties a directory, or makes one. The directory itself stays in place.
func (s *System) emptyDir(name string) error {
	dir, err := s.makeDir(name, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := dir.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// SaveNetwork returns an archive of the system's own network files (OwnNetwork). It is nil if there are none. The
// system is mounted at dir.
func SaveNetwork(dir, confDir string) (archive []byte, left []error, err error) {
	err = withSystem(dir, func(s *System) error {
		files, notes, err := s.OwnNetwork(confDir)
		left = notes
		if err == nil && files != nil {
			archive, err = PackNetwork(files)
		}
		return err
	})
	return archive, left, err
}

// PackNetwork returns the files as a tar archive. The same files always give the same bytes.
func PackNetwork(files []File) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Content)), Mode: 0o644, ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack network configuration: %w", err)
		}
		if _, err := t.Write(f.Content); err != nil {
			return nil, fmt.Errorf("pack network configuration: %w", err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, fmt.Errorf("pack network configuration: %w", err)
	}
	if b.Len() > state.MaxNetwork {
		return nil, fmt.Errorf("pack network configuration: %d bytes, at most %d", b.Len(), state.MaxNetwork)
	}
	return b.Bytes(), nil
}

// UnpackNetwork reads an archive of PackNetwork. The archive is not trusted: every file returned has passed
// CheckNetworkFile. refused has an error for each entry left out. It is an error if the archive cannot be read to its
// end, holds too much, or leaves no .network file.
func UnpackNetwork(archive []byte) (files []File, refused []error, err error) {
	if len(archive) > state.MaxNetwork {
		return nil, nil, fmt.Errorf("network configuration: %d bytes, at most %d", len(archive), state.MaxNetwork)
	}
	seen := map[string]bool{}
	t := tar.NewReader(bytes.NewReader(archive))
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, refused, fmt.Errorf("network configuration: %w", err)
		}
		if n >= 2*maxNetworkFiles || len(files) >= maxNetworkFiles {
			return nil, refused, errors.New("network configuration: too many files")
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch {
		case h.Typeflag == tar.TypeDir, name == PreservedFlag:
			continue
		case h.Typeflag != tar.TypeReg:
			refused = append(refused, fmt.Errorf("%q is not a regular file", h.Name))
			continue
		case seen[name]:
			refused = append(refused, fmt.Errorf("%q is there twice", h.Name))
			continue
		}
		b, err := io.ReadAll(io.LimitReader(t, maxNetworkFile+1))
		if err != nil {
			return nil, refused, fmt.Errorf("network configuration: %q: %w", h.Name, err)
		}
		f := File{name, b}
		if err := CheckNetworkFile(f); err != nil {
			refused = append(refused, err)
			continue
		}
		seen[name] = true
		files = append(files, f)
	}
	if !hasNetwork(files) {
		return nil, refused, errors.New("network configuration: no .network file is left")
	}
	return files, refused, nil
}

func networkSuffix(name string) bool {
	return slices.Contains([]string{".network", ".link", ".netdev"}, path.Ext(name))
}
