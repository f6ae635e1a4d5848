package recipe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gprovision/forge/tool"
)

// MakeOptions says how a root filesystem is made.
type MakeOptions struct {
	// Dir is the directory of the recipe: relative sources of files begin there.
	Dir string
	// Out is the tar to write.
	Out string
	// Time is the newest time that a file may have: later ones are set to it. Zero: as it comes.
	Time time.Time
	// Apt is the directory of the host's apt configuration; empty: /etc/apt.
	Apt string
}

// Make makes the root filesystem. It needs root, or a host that lets users map several identities (mmdebstrap --mode=unshare);
// the packages are downloaded. A program that is missing is a *tool.MissingError.
func (r Recipe) Make(ctx context.Context, log *slog.Logger, o MakeOptions) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("recipe: %w", err)
	}
	if o.Apt == "" {
		o.Apt = "/etc/apt"
	}
	work, err := os.MkdirTemp("", "gprov-recipe-")
	if err != nil {
		return fmt.Errorf("make root filesystem: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("make root filesystem: %w", err)
	}
	args, err := r.arguments(ctx, log, o, work)
	if err != nil {
		return fmt.Errorf("make root filesystem: %w", err)
	}
	c := tool.Command{Name: "mmdebstrap", Package: "mmdebstrap", Args: args}
	if !o.Time.IsZero() {
		c.Env = []string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(o.Time.Unix(), 10)}
	}
	if err := tool.Run(ctx, log, c); err != nil {
		return fmt.Errorf("make root filesystem: %w", err)
	}
	return nil
}

// arguments are those of mmdebstrap. The files that they name are written into work.
func (r Recipe) arguments(ctx context.Context, log *slog.Logger, o MakeOptions, work string) ([]string, error) {
	args := []string{"--format=tar", "--quiet", "--variant=" + orElse(r.Variant, "apt"), "--architectures=amd64"}
	if len(r.Packages) > 0 {
		args = append(args, "--include="+strings.Join(r.Packages, ","))
	}
	for _, e := range r.Exclude {
		args = append(args, "--dpkgopt=path-exclude="+e)
	}
	for _, k := range r.Keys {
		if !filepath.IsAbs(k) {
			k = filepath.Join(o.Dir, k)
		}
		if _, err := os.Stat(k); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		args = append(args, "--keyring="+k)
	}
	options, err := aptOptions(ctx, log)
	if err != nil {
		return nil, err
	}
	for _, v := range options {
		args = append(args, "--aptopt="+v)
	}
	script, err := r.script(o.Dir, work)
	if err != nil {
		return nil, err
	}
	hook := filepath.Join(work, "customize")
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		return nil, err
	}
	args = append(args, "--customize-hook="+hook, r.Suite, o.Out)
	sources, err := r.sources(o.Apt)
	if err != nil {
		return nil, err
	}
	list := filepath.Join(work, "recipe.sources")
	if len(r.Sources) > 0 {
		list = filepath.Join(work, "recipe.list")
	}
	if err := os.WriteFile(list, []byte(sources), 0o644); err != nil {
		return nil, err
	}
	return append(args, list), nil
}

// script is what mmdebstrap runs after the packages, with the new root as its argument. Recipes are checked, and every text of
// one is quoted.
func (r Recipe) script(dir, work string) (string, error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!/bin/sh\nset -eu\nroot=$1\ninside() { chroot \"$root\" \"$@\"; }")
	for i, f := range r.Files {
		at := quote(f.Path)
		mode, err := f.mode()
		if err != nil {
			return "", err
		}
		line("inside mkdir -p -- %s", quote(path.Dir(f.Path)))
		switch {
		case f.Link != "":
			line("inside ln -sfn -- %s %s", quote(f.Link), at)
			continue
		case f.Directory:
			line("inside mkdir -p -- %s", at)
		default:
			// cat inside writes it, so that a link in the new root is followed inside too.
			content := filepath.Join(work, fmt.Sprintf("file%d", i))
			if err := f.take(dir, content); err != nil {
				return "", fmt.Errorf("file %s: %w", f.Path, err)
			}
			line("inside sh -c 'cat > \"$1\"' - %s < %s", at, quote(content))
		}
		line("inside chmod %04o -- %s", mode, at)
	}
	users := slices.Clone(r.Users)
	if !slices.ContainsFunc(users, func(u User) bool { return u.Name == Admin }) {
		users = append(users, User{Name: Admin})
	}
	for _, u := range users {
		u.commands(line)
	}
	// Owners may be users that were just made.
	for _, f := range r.Files {
		if f.Link == "" {
			owner := orElse(f.Owner, "root:root")
			line("inside chown %s -- %s", quote(owner), quote(f.Path))
		}
	}
	for _, c := range r.Commands {
		line("inside /bin/sh -ec %s", quote(c))
	}
	// Nobody gets a password here, whatever packages and commands did.
	line("inside sh -c 'cut -d: -f1 /etc/passwd' | while read -r user; do inside usermod -p '!*' \"$user\" </dev/null; done")
	for _, p := range append(slices.Clone(r.Remove), "/etc/ssh/ssh_host_*", "/etc/apt/apt.conf.d/99mmdebstrap", "/var/lib/apt/lists/*", "/var/cache/apt/*.bin", "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-") {
		// Patterns hold nothing that a shell would take for something else; see check.
		line("inside sh -c 'rm -rf -- %s'", p)
	}
	line("if [ -e \"$root/etc/machine-id\" ]; then inside sh -c ': > /etc/machine-id'; fi\ninside rm -f /var/lib/dbus/machine-id")
	return b.String(), nil
}

// take writes the content of a file to be put in.
func (f File) take(dir, to string) error {
	if f.Content != nil {
		return os.WriteFile(to, []byte(*f.Content), 0o644)
	}
	from := f.Source
	if !filepath.IsAbs(from) {
		from = filepath.Join(dir, from)
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", from)
	}
	abs, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	return os.Symlink(abs, to)
}

// commands make the account, or change one that a package has made.
func (u User) commands(line func(string, ...any)) {
	for _, g := range u.Groups {
		line("inside sh -c 'getent group %s >/dev/null || groupadd -r %s'", g, g)
	}
	shell := u.Shell
	var opts []string
	if u.System {
		opts = append(opts, "-r", "-M")
		shell = orElse(shell, "/usr/sbin/nologin")
	} else {
		opts = append(opts, "-m")
		shell = orElse(shell, "/bin/bash")
	}
	opts = append(opts, "-U", "-s", shell)
	if u.UID > 0 {
		opts = append(opts, "-u", strconv.Itoa(u.UID))
	}
	if u.Home != "" {
		opts = append(opts, "-d", u.Home)
	}
	line("if ! inside getent passwd %s >/dev/null; then inside useradd %s %s; fi", u.Name, strings.Join(opts, " "), u.Name)
	if len(u.Groups) > 0 {
		line("inside usermod -a -G %s %s", strings.Join(u.Groups, ","), u.Name)
	}
	if len(u.Keys) > 0 {
		line("home=$(inside getent passwd %s | cut -d: -f6)\ninside install -d -m 0700 -o %s -g %s \"$home/.ssh\"", u.Name, u.Name, u.Name)
		line("printf '%%s\\n' %s | inside sh -c 'cat > \"$1/.ssh/authorized_keys\"' - \"$home\"", quoteAll(u.Keys))
		line("inside chown %s:%s \"$home/.ssh/authorized_keys\"\ninside chmod 0600 \"$home/.ssh/authorized_keys\"", u.Name, u.Name)
	}
}

// quote quotes a text for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func quoteAll(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, quote(s))
	}
	return strings.Join(out, " ")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// ErrNoSource says that the host's apt configuration names no source of the suite.
var ErrNoSource = errors.New("the host's apt configuration has no source of that suite; name sources in the recipe")

// sources are the package sources of the new system: the recipe's, in the format of a .list file, or those of the host that
// have the suite, in the format of a .sources file.
func (r Recipe) sources(apt string) (string, error) {
	if len(r.Sources) > 0 {
		return strings.Join(r.Sources, "\n") + "\n", nil
	}
	all, err := hostSources(apt)
	if err != nil {
		return "", fmt.Errorf("read apt sources: %w", err)
	}
	var out strings.Builder
	for _, s := range all {
		var suites []string
		for _, suite := range s.suites {
			if of(suite, r.Suite) {
				suites = append(suites, suite)
			}
		}
		if len(suites) == 0 {
			continue
		}
		components := s.components
		if len(r.Components) > 0 {
			components = r.Components
		}
		fmt.Fprintf(&out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", strings.Join(s.uris, " "), strings.Join(suites, " "), strings.Join(components, " "))
		if s.signed != "" {
			fmt.Fprintf(&out, "Signed-By:%s\n", s.signed)
		}
		out.WriteString("\n")
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("suite %s: %w", r.Suite, ErrNoSource)
	}
	return out.String(), nil
}

// of accepts the suite and its updates and security, not backports.
func of(suite, want string) bool {
	suite, _, _ = strings.Cut(suite, "/")
	return suite == want || suite == want+"-updates" || suite == want+"-security"
}

// source is a source of packages.
type source struct {
	uris, suites, components []string
	signed                   string // value of Signed-By with what stands before it, over several lines where it is a key
}

// hostSources reads sources.list(5), in both formats.
func hostSources(dir string) ([]source, error) {
	files, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	var out []source
	for _, f := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		ext := filepath.Ext(f)
		if ext != ".list" && ext != ".sources" {
			continue
		}
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ext == ".list" {
			out = append(out, listSources(string(b))...)
		} else {
			out = append(out, deb822Sources(string(b))...)
		}
	}
	return out, nil
}

// listSources reads lines "deb [options] URI SUITE COMPONENT...".
func listSources(text string) []source {
	var out []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if options, behind, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			rest = behind
			for _, o := range strings.Fields(options) {
				if k, v, _ := strings.Cut(o, "="); strings.EqualFold(k, "signed-by") {
					s.signed = " " + v
				}
			}
		}
		if f := strings.Fields(rest); len(f) > 2 {
			s.uris, s.suites, s.components = f[:1], f[1:2], f[2:]
			out = append(out, s)
		}
	}
	return out
}

// deb822Sources reads stanzas.
func deb822Sources(text string) []source {
	var out []source
	var s source
	deb, enabled, field := false, true, ""
	flush := func() {
		if deb && enabled && len(s.uris) > 0 {
			out = append(out, s)
		}
		s, deb, enabled, field = source{}, false, true, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "":
			flush()
			continue
		case strings.HasPrefix(line, "#"):
			continue
		case line[0] == ' ' || line[0] == '\t':
			if field == "signed-by" {
				s.signed += "\n" + line
				continue
			}
		default:
			name, value, _ := strings.Cut(line, ":")
			field, line = strings.ToLower(name), value
			if field == "signed-by" {
				s.signed = line
				continue
			}
		}
		words := strings.Fields(line)
		switch field {
		case "types":
			deb = deb || slices.Contains(words, "deb")
		case "uris":
			s.uris = append(s.uris, words...)
		case "suites":
			s.suites = append(s.suites, words...)
		case "components":
			s.components = append(s.components, words...)
		case "enabled":
			enabled = !slices.Contains(words, "no")
		}
	}
	flush()
	return out
}

// aptOption are the settings of the host's apt that say how packages are fetched.
var aptOption = regexp.MustCompile(`^Acquire::((https?|ftp)::(Proxy|Timeout|No-Cache)[^ ]*|(Check-Valid-Until|Check-Date|Retries|ForceIPv4|ForceIPv6)) "[^"]+";$`)

func aptOptions(ctx context.Context, log *slog.Logger) ([]string, error) {
	b, err := tool.Output(ctx, log, tool.Command{Name: "apt-config", Package: "apt", Args: []string{"dump"}})
	if err != nil {
		return nil, fmt.Errorf("read apt configuration: %w", err)
	}
	var out []string
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if aptOption.MatchString(sc.Text()) {
			out = append(out, strings.TrimSuffix(sc.Text(), ";"))
		}
	}
	slices.Sort(out)
	return out, nil
}
