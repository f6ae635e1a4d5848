package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gprovision/factory/netboot"
	"gprovision/forge/boot"
	"gprovision/model/manifest"
	"gprovision/model/naming"
	"gprovision/model/source"
	"gprovision/site"
)

// readNames reads the names of a product for whoever builds with them: problems are printed, and more than warnings are an error. What the
// file leaves out is the Site's.
func readNames(c *Context, name string) (naming.Names, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return naming.Names{}, fmt.Errorf("read names: %w", err)
	}
	n, ps := naming.Check(b)
	printProblems(c.Stderr, name, ps)
	if source.Join(ps) != nil {
		return naming.Names{}, &HintError{fmt.Errorf("the names in %s are refused", name), "mend what is said above, or look at docs/formats/names.md"}
	}
	if n = n.Or(c.Site.Names.Chosen()); n.Validate() != nil {
		return naming.Names{}, fmt.Errorf("the names in %s do not go with those of the Site: %w", name, n.Validate())
	}
	return n, nil
}

// namesFor returns the names that an artifact gets: those of a file, or the Site's where they are a company's own. An artifact without
// any has those of its init.
func namesFor(c *Context, file string) (naming.Names, error) {
	if file != "" {
		return readNames(c, file)
	}
	if c.Site.Names.Chosen() == site.Stock().Names.Chosen() {
		return naming.Names{}, nil
	}
	return c.Site.Names.Chosen(), nil
}

// inspect looks into the boot artifact in a file.
func inspect(file string) (boot.Inspection, error) {
	f, err := os.Open(file)
	if err != nil {
		return boot.Inspection{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return boot.Inspection{}, err
	}
	return boot.Inspect(f, st.Size())
}

// namesIn returns the names that the units of a boot artifact in a file go by: its own, or the Site's if it has none.
func namesIn(c *Context, file string) (naming.Names, error) {
	in, err := inspect(file)
	if err != nil {
		return naming.Names{}, &HintError{fmt.Errorf("boot artifact %s: %w", file, err), "want one that 'gprov boot build' has made"}
	}
	return in.NamesOr(c.Site.Names.Chosen()), nil
}

// listed returns the path of the boot artifact that a manifest lists, if it lies below root, and its place in the manifest.
func listed(m *manifest.Manifest, root, bootFile string) (file, at string) {
	for i, f := range m.Files {
		u, err := url.Parse(f.Src)
		if err != nil || u.IsAbs() || u.Host != "" {
			continue
		}
		if place, err := f.Place(""); err != nil || place != bootFile {
			continue
		}
		rel := filepath.FromSlash(strings.TrimLeft(u.Path, "/"))
		if filepath.IsLocal(rel) {
			return filepath.Join(root, rel), fmt.Sprintf("Files[%d]", i)
		}
	}
	return "", ""
}

// manifestNames returns the names by which the units go that a manifest is for: those of the artifact that provisions them, a file. Without
// one, those of the boot artifact that the manifest lists, if it lies below root, else the Site's. Where the two differ that is a problem:
// an error if no unit could restore itself with it, else a warning.
func manifestNames(c *Context, m *manifest.Manifest, root, artifact string) (naming.Names, []source.Problem, error) {
	names, known := c.Site.Names.Chosen(), false
	if artifact != "" {
		n, err := namesIn(c, artifact)
		if err != nil {
			return names, nil, err
		}
		names, known = n, true
	}
	file, at := listed(m, root, c.Site.Names.BootFile)
	if file == "" {
		return names, nil, nil
	}
	in, err := inspect(file)
	if err != nil || in.Policy == nil { // not one of ours: nothing is known of it
		return names, nil, nil
	}
	own := in.NamesOr(c.Site.Names.Chosen())
	if !known || own == names {
		return own, nil, nil
	}
	return names, []source.Problem{{Path: at, Warning: own.ImagePrefix == names.ImagePrefix,
		Text: fmt.Sprintf("this boot artifact goes by other names (%s) than the one that provisions (%s)", namesText(own), namesText(names)),
		Hint: "build both with the same file for --names"}}, nil
}

// namesText is names in one line.
func namesText(n naming.Names) string {
	n = n.Or(naming.Names{ImagePrefix: "-", RecoveryLabel: "-", PrimaryLabel: "-", HostPrefix: "-"})
	return fmt.Sprintf("images %s, recovery volume %s, main system %s, hosts %s", n.ImagePrefix, n.RecoveryLabel, n.PrimaryLabel, n.HostPrefix)
}

// servedNames reports whether the files of a server go together: the artifact that provisions, the manifest, and the boot artifact in
// that. It looks into them only when they have changed, as that takes a second.
type servedNames struct {
	c             *Context
	dir, manifest string
	mu            sync.Mutex
	seen          string
	problems      []string
}

func (s *servedNames) check() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := ""
	for _, name := range []string{netboot.Artifact, s.manifest, s.c.Site.Names.BootFile} {
		if st, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			state += fmt.Sprintln(name, st.Size(), st.ModTime().UnixNano())
		}
	}
	if state != s.seen {
		s.seen, s.problems = state, s.look()
	}
	return s.problems
}

func (s *servedNames) look() []string {
	b, err := os.ReadFile(filepath.Join(s.dir, s.manifest))
	if err != nil {
		return nil // CheckFiles says so
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return []string{fmt.Sprintf("%s is refused by units: %v", filepath.Join(s.dir, s.manifest), err)}
	}
	artifact := filepath.Join(s.dir, netboot.Artifact)
	in, err := inspect(artifact)
	if err != nil || in.Policy == nil {
		return nil // CheckFiles says so, or it is not one of ours
	}
	names, ps, err := manifestNames(s.c, m, s.dir, artifact)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%s: %s: %s", filepath.Join(s.dir, s.manifest), p.Text, p.Hint))
	}
	if !slices.ContainsFunc(m.Files, func(f manifest.File) bool { return f.IsImage(names.ImagePrefix) }) {
		out = append(out, fmt.Sprintf("%s has no image called %s...: units that %s provisions take no other", filepath.Join(s.dir, s.manifest), names.ImagePrefix, netboot.Artifact))
	}
	return out
}
