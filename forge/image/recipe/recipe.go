// Package recipe makes a root filesystem from a recipe: a YAML file that names a Debian suite, packages, files, users and
// commands. mmdebstrap does the work, through package tool.
//
// Packages come from the host's own apt configuration unless the recipe names package sources. An account admin is always
// there; every account is locked, since each unit sets admin's password itself. No SSH host keys, no machine-id and no package
// lists are left behind. What is not understood in a recipe is an error. The format is described in docs/formats/recipe.md.
package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Version is that of the format.
const Version = 1

// MaxSize is the largest recipe that is read, in bytes.
const MaxSize = 1 << 20

// Recipe says what is in a root filesystem.
type Recipe struct {
	// Version is that of the format; 0 means 1.
	Version int `yaml:"version"`
	// Suite is the Debian release, such as "bookworm".
	Suite string `yaml:"suite"`
	// Variant is the set of packages to begin with, as mmdebstrap knows it; empty: "apt".
	Variant string `yaml:"variant"`
	// Components are those of the sources that are made from the host's; empty: as the host has them.
	Components []string `yaml:"components"`
	// Sources are lines of sources.list(5), in place of the host's.
	Sources []string `yaml:"sources"`
	// Keys are files with the keys that sign Sources, on the building host.
	Keys []string `yaml:"keys"`
	// Packages are installed.
	Packages []string `yaml:"packages"`
	// Exclude are patterns of files that dpkg leaves out, such as "/usr/share/doc/*".
	Exclude []string `yaml:"exclude"`
	// Files are put in after the packages.
	Files []File `yaml:"files"`
	// Users are made after the files.
	Users []User `yaml:"users"`
	// Commands run inside, by /bin/sh, at last and in order.
	Commands []string `yaml:"commands"`
	// Remove are patterns of files that are removed at the end, such as "/boot/initrd*".
	Remove []string `yaml:"remove"`
}

// File is a file to put in.
type File struct {
	// Path is where it is put, absolute.
	Path string `yaml:"path"`
	// Content is what it holds; one of Content, Source, Link and Directory is given.
	Content *string `yaml:"content"`
	// Source is a file on the building host; relative to the recipe.
	Source string `yaml:"source"`
	// Link makes a symbolic link to this.
	Link string `yaml:"link"`
	// Directory makes a directory.
	Directory bool `yaml:"directory"`
	// Mode is octal; empty: 0644, for a directory 0755.
	Mode string `yaml:"mode"`
	// Owner is "USER" or "USER:GROUP"; empty: root:root.
	Owner string `yaml:"owner"`
}

// User is an account to make. It is locked.
type User struct {
	Name   string   `yaml:"name"`
	UID    int      `yaml:"uid"`    // 0: the next that is free
	System bool     `yaml:"system"` // of a service: no home, no shell
	Groups []string `yaml:"groups"` // made if they are not there
	Home   string   `yaml:"home"`   // empty: useradd's own
	Shell  string   `yaml:"shell"`  // empty: /bin/bash, of a service /usr/sbin/nologin
	// Keys are lines of authorized_keys; only admin may have them.
	Keys []string `yaml:"keys"`
}

// Admin is the account that every root filesystem must have.
const Admin = "admin"

// Parse reads a recipe and checks all that can be checked without a host.
func Parse(b []byte) (Recipe, error) {
	var r Recipe
	if len(b) > MaxSize {
		return r, fmt.Errorf("parse recipe: %d bytes, at most %d", len(b), MaxSize)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		if err == io.EOF {
			err = errors.New("it is empty")
		}
		return Recipe{}, fmt.Errorf("parse recipe: %w", err)
	}
	var more any
	if err := d.Decode(&more); err != io.EOF {
		return Recipe{}, errors.New("parse recipe: there is a second document in it")
	}
	if err := r.check(); err != nil {
		return Recipe{}, fmt.Errorf("parse recipe: %w", err)
	}
	return r, nil
}

// check reports all problems at once.
func (r *Recipe) check() error {
	var bad []error
	say := func(format string, args ...any) { bad = append(bad, fmt.Errorf(format, args...)) }
	if r.Version < 0 || r.Version > Version {
		say("version %d is not known, the newest is %d", r.Version, Version)
	}
	if !matches(`[a-z][a-z0-9.-]*`, r.Suite) {
		say("suite %q: want the name of a Debian release, such as bookworm", r.Suite)
	}
	if r.Variant != "" && !slices.Contains([]string{"apt", "essential", "minbase", "required", "important", "standard", "buildd"}, r.Variant) {
		say("variant %q is not one of apt, essential, minbase, required, important, standard, buildd", r.Variant)
	}
	for _, c := range r.Components {
		if !matches(`[a-z][a-z0-9/-]*`, c) {
			say("component %q", c)
		}
	}
	for _, s := range r.Sources {
		if !strings.HasPrefix(s, "deb ") || oneLine(s) != nil {
			say("source %q: want a line of sources.list that begins with deb", s)
		}
	}
	if len(r.Keys) > 0 && len(r.Sources) == 0 {
		say("keys are for sources, and there are none")
	}
	for _, p := range r.Packages {
		if !matches(`[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?([=/][A-Za-z0-9.+:~_-]+)?-?`, p) {
			say("package %q is not a name, with =VERSION or /SUITE behind it or not", p)
		}
	}
	for _, list := range [][]string{r.Exclude, r.Remove} {
		for _, p := range list {
			if !strings.HasPrefix(p, "/") || path.Clean(p) == "/" || strings.Contains(p+"/", "/../") || !matches(`[A-Za-z0-9_./*?+@:\[\],~-]+`, p) {
				say("pattern %q: want an absolute path with *, ? and [] or without", p)
			}
		}
	}
	seen := map[string]bool{}
	for _, f := range r.Files {
		f.check(say)
		if seen[f.Path] {
			say("file %s is there twice", f.Path)
		}
		seen[f.Path] = true
	}
	names := map[string]bool{}
	for _, u := range r.Users {
		u.check(say)
		if names[u.Name] {
			say("user %s is there twice", u.Name)
		}
		names[u.Name] = true
	}
	for _, c := range r.Commands {
		if strings.TrimSpace(c) == "" || strings.ContainsRune(c, 0) {
			say("command %q", c)
		}
	}
	return errors.Join(bad...)
}

func (f File) check(say func(string, ...any)) {
	if !strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || f.Path == "/" || oneLine(f.Path) != nil {
		say("file %q: want an absolute path without . and .. in it", f.Path)
	}
	kinds := 0
	for _, b := range []bool{f.Content != nil, f.Source != "", f.Link != "", f.Directory} {
		if b {
			kinds++
		}
	}
	if kinds != 1 {
		say("file %s: want one of content, source, link and directory", f.Path)
	}
	if _, err := f.mode(); err != nil {
		say("file %s: %w", f.Path, err)
	}
	if f.Owner != "" && !matches(`[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?`, f.Owner) {
		say("file %s: owner %q, want USER or USER:GROUP", f.Path, f.Owner)
	}
	if oneLine(f.Link) != nil {
		say("file %s: link to %q", f.Path, f.Link)
	}
}

// mode returns the file's mode.
func (f File) mode() (fs.FileMode, error) {
	if f.Mode == "" {
		if f.Directory {
			return 0o755, nil
		}
		return 0o644, nil
	}
	n, err := strconv.ParseUint(f.Mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mode %q, want octal digits such as 0755", f.Mode)
	}
	return fs.FileMode(n), nil
}

func (u User) check(say func(string, ...any)) {
	const name = `[a-z_][a-z0-9_-]{0,31}`
	if !matches(name, u.Name) || u.Name == "root" {
		say("user %q: want a name of small letters, digits, _ and -, and not root", u.Name)
	}
	if u.UID < 0 || u.UID > 60000 {
		say("user %s: uid %d, want 1 to 60000", u.Name, u.UID)
	}
	for _, g := range u.Groups {
		if !matches(name, g) {
			say("user %s: group %q", u.Name, g)
		}
	}
	for what, p := range map[string]string{"home": u.Home, "shell": u.Shell} {
		if p != "" && !matches(`/[A-Za-z0-9_./-]*`, p) {
			say("user %s: %s %q, want an absolute path", u.Name, what, p)
		}
	}
	if len(u.Keys) > 0 && u.Name != Admin {
		say("user %s: only admin may log in, so only admin may have keys", u.Name)
	}
	if u.System && u.Name == Admin {
		say("user admin cannot be a system user: it must be able to log in")
	}
	for _, k := range u.Keys {
		if oneLine(k) != nil || strings.TrimSpace(k) == "" {
			say("user %s: key %q is not one line", u.Name, k)
		}
	}
}

func matches(pattern, s string) bool {
	ok, err := regexp.MatchString(`\A(?:`+pattern+`)\z`, s)
	return err == nil && ok
}

func oneLine(s string) error {
	if strings.ContainsAny(s, "\x00\n\r") {
		return errors.New("more than one line")
	}
	return nil
}
