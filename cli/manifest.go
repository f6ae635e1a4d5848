package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/hw/durable"
	"gprovision/model/manifest"
	"gprovision/model/naming"
	"gprovision/model/signature"
	"gprovision/model/source"
)

// ManifestCmd are the verbs about manifests.
type ManifestCmd struct {
	Make  ManifestMakeCmd  `cmd:"" help:"Make a manifest, with hashes from the files, and sign it."`
	Check ManifestCheckCmd `cmd:"" help:"Explain everything that is wrong with a manifest."`
	Diff  ManifestDiffCmd  `cmd:"" help:"Say what changes for whom from one manifest to another."`
	Specs ManifestSpecsCmd `cmd:"" help:"Write the specification of a platform from a machine, or from a capture of one."`
}

// ManifestMakeCmd makes a manifest.
type ManifestMakeCmd struct {
	Out string `required:"" placeholder:"FILE" help:"Manifest to write, usually manufData.json in the directory that is served."`

	From               string   `placeholder:"FILE" help:"Start from this manifest: keep what it says, and measure its files anew."`
	Image              []string `sep:"none" placeholder:"FILE" help:"Release image. May be repeated; the first one is installed."`
	Boot               string   `placeholder:"FILE" help:"Boot artifact, installed as norm_boot."`
	File               []string `sep:"none" placeholder:"FILE[:DEST]" help:"Another file for the recovery volume. May be repeated."`
	FilesDir           string   `placeholder:"DIR" help:"Directory that the server serves beside the manifest; addresses are relative to it. Default: the directory of --out."`
	Specs              string   `placeholder:"FILE" help:"Specifications of the hardware: a JSON list of ValidationData, or one of them."`
	Platform           []string `sep:"none" placeholder:"NAME" help:"Take only the specification with this DevCodeName. May be repeated."`
	LogEndpoint        string   `placeholder:"ADDRESS" help:"The factory server, as https URL or host:port."`
	CredentialEndpoint string   `placeholder:"NAME" help:"Who gives credentials. Default: pblog, the factory server's own vault."`

	Key             string `placeholder:"FILE" help:"Sign with this key (gprov keys new) and write FILE.minisig."`
	Passphrase      string `name:"passphrase-file" placeholder:"FILE" help:"File whose first line is the key's passphrase."`
	Product         string `placeholder:"NAME" help:"Product, for the signature's trusted comment."`
	Serial          string `placeholder:"N" help:"Serial number of the manifest, for the signature's trusted comment. Count it up."`
	AllowIncomplete bool   `help:"Write the manifest although units would refuse it."`
}

// Help returns the examples of the verb.
func (*ManifestMakeCmd) Help() string {
	return `Examples:

  gprov manifest make --out files/manufData.json --image files/WIDGET.LNX.SHINY.2026-11-22.0001.upd --boot files/norm_boot \
      --specs specs.json --log-endpoint https://10.0.0.1:8443 --key product.key --product WIDGET --serial 1
  gprov manifest make --from files/manufData.json --out files/manufData.json --key product.key --product WIDGET --serial 2

The files must lie where the server serves them: their addresses in the manifest are relative to it.`
}

// Run makes, checks, writes and signs the manifest.
func (m *ManifestMakeCmd) Run(c *Context) error {
	key, err := m.key(c)
	if err != nil {
		return err
	}
	made, names, err := m.make(c)
	if err != nil {
		return err
	}
	b, err := made.Marshal()
	if err != nil {
		return err
	}
	problems := manifest.Check(b, rules(c, names))
	printProblems(c.Stderr, m.Out, problems)
	if err := source.Join(problems); err != nil && !m.AllowIncomplete {
		return &HintError{errors.New("units would refuse this manifest, so it was not written"), "add what is missing, or write it all the same with --allow-incomplete"}
	}
	// A manifest and a signature that do not belong together are refused by every unit: there is no moment at which
	// units could take half of the new pair.
	if err := durable.Write(m.Out, b, 0o644); err != nil {
		return err
	}
	if key != nil {
		sig, err := key.Sign(bytes.NewReader(b), signature.ManifestComment(m.Product, m.Serial))
		if err != nil {
			return fmt.Errorf("sign %s: %w", m.Out, err)
		}
		return durable.Write(m.Out+signature.Suffix, sig, 0o644)
	}
	if err := os.Remove(m.Out + signature.Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the signature of the manifest before: %w", err)
	}
	return nil
}

// key returns the signing key, or nil if there is none.
func (m *ManifestMakeCmd) key(c *Context) (*signature.PrivateKey, error) {
	if m.Key == "" {
		return nil, nil
	}
	if m.Product == "" || m.Serial == "" {
		return nil, &UsageError{errors.New("--key needs --product and --serial: the signature names them")}
	}
	if _, err := signature.ParseSerial(m.Serial); err != nil {
		return nil, &UsageError{fmt.Errorf("--serial: %w, so that units can tell which manifest is newer", err)}
	}
	if strings.TrimSpace(m.Product) != m.Product {
		return nil, &UsageError{errors.New("--product has spaces around it")}
	}
	k, err := readPrivateKey(c, m.Key, m.Passphrase)
	if err != nil {
		return nil, err
	}
	return &k, nil
}

// make makes the manifest, for units that go by the names which it returns.
func (m *ManifestMakeCmd) make(c *Context) (*manifest.Manifest, naming.Names, error) {
	out, root, err := m.begin()
	if err != nil {
		return nil, naming.Names{}, err
	}
	names, _, err := manifestNames(c, out, root, "")
	if err != nil {
		return nil, names, err
	}
	if m.Boot != "" {
		if in, err := inspect(m.Boot); err == nil && in.Policy != nil {
			names = in.NamesOr(c.Site.Names.Chosen())
		}
	}
	out, err = m.fill(c, out, root, names.ImagePrefix)
	return out, names, err
}

// begin returns the manifest to start from, and the directory that is served.
func (m *ManifestMakeCmd) begin() (out *manifest.Manifest, root string, err error) {
	out = &manifest.Manifest{}
	if m.From != "" {
		b, err := os.ReadFile(m.From)
		if err != nil {
			return nil, "", fmt.Errorf("read manifest: %w", err)
		}
		if out, err = manifest.Parse(b); err != nil {
			return nil, "", fmt.Errorf("%s: %w", m.From, err)
		}
	}
	if root = m.FilesDir; root == "" {
		root = filepath.Dir(m.Out)
	}
	root, err = filepath.Abs(root)
	return out, root, err
}

// fill puts in what the flags say.
func (m *ManifestMakeCmd) fill(c *Context, out *manifest.Manifest, root, prefix string) (*manifest.Manifest, error) {
	var files []manifest.File
	add := func(name, dest string) error {
		src, err := relativeSrc(root, name)
		if err != nil {
			return err
		}
		f := manifest.File{Src: src, Dest: dest}
		if dest == "" && f.Base() != filepath.Base(name) {
			return fmt.Errorf("%s: the name cannot be part of an address", name)
		}
		files = append(files, f)
		return nil
	}
	for _, name := range m.Image {
		if f := (manifest.File{Src: url.PathEscape(filepath.Base(name))}); !f.IsImage(prefix) {
			return nil, &HintError{fmt.Errorf("%s is not named like an image of this product", name), "the name begins with " + prefix + ", as the names of the boot artifact say (gprov boot inspect), and ends in .upd"}
		}
		if err := add(name, ""); err != nil {
			return nil, err
		}
	}
	if m.Boot != "" {
		dest := ""
		if filepath.Base(m.Boot) != c.Site.Names.BootFile {
			dest = c.Site.Names.BootFile
		}
		if err := add(m.Boot, dest); err != nil {
			return nil, err
		}
	}
	for _, s := range m.File {
		name, dest, _ := strings.Cut(s, ":")
		if err := add(name, dest); err != nil {
			return nil, err
		}
	}
	if len(files) > 0 {
		out.Files = files
	}
	if m.LogEndpoint != "" {
		out.LogEndpoint = m.LogEndpoint
	}
	if m.CredentialEndpoint != "" {
		out.CredentialEndpoint = m.CredentialEndpoint
	} else if out.CredentialEndpoint == "" {
		out.CredentialEndpoint = manifest.Vault
	}
	if err := m.specs(out); err != nil {
		return nil, err
	}
	return manifest.Make(out, func(f manifest.File) (io.ReadCloser, error) {
		if err := c.Err(); err != nil {
			return nil, err
		}
		u, err := url.Parse(f.Src)
		if err != nil || u.IsAbs() || u.Host != "" {
			fmt.Fprintf(c.Stderr, "%s: lies elsewhere, its hash stays as it is\n", shown.Line(f.Src))
			return nil, nil
		}
		r, err := os.OpenInRoot(root, filepath.FromSlash(strings.TrimLeft(u.Path, "/")))
		if err != nil {
			return nil, fmt.Errorf("read %s below %s: %w", f.Src, root, err)
		}
		return r, nil
	})
}

// relativeSrc returns the address of a file relative to the directory that is served.
func relativeSrc(root, name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return "", &HintError{fmt.Errorf("%s is not inside of %s, so units could not fetch it", name, root), "put the file into the directory that is served, or name another one with --files-dir"}
	}
	parts := strings.Split(filepath.ToSlash(rel), "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	src := strings.Join(parts, "/")
	if strings.Contains(parts[0], ":") { // would be read as a scheme
		src = "./" + src
	}
	return src, nil
}

// specs reads the specifications into out.
func (m *ManifestMakeCmd) specs(out *manifest.Manifest) error {
	if m.Specs != "" {
		b, err := os.ReadFile(m.Specs)
		if err != nil {
			return fmt.Errorf("read specifications: %w", err)
		}
		if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
			b = append(append([]byte("["), b...), ']')
		}
		// The lines of problems are those of the file: what goes around it has no line break.
		s, err := manifest.Parse(append(append([]byte(`{"ValidationData":`), b...), '}'))
		if err != nil {
			return fmt.Errorf("%s: %w", m.Specs, err)
		}
		out.ValidationData = s.ValidationData
	}
	if len(m.Platform) == 0 {
		return nil
	}
	for _, name := range m.Platform {
		if _, err := out.SpecsFor(name); err != nil {
			return &HintError{err, "add its specification to the file of --specs"}
		}
	}
	out.ValidationData = slices.DeleteFunc(out.ValidationData, func(s manifest.Specs) bool { return !slices.Contains(m.Platform, s.DevCodeName) })
	return nil
}

// ManifestCheckCmd checks a manifest.
type ManifestCheckCmd struct {
	File     string `arg:"" help:"Manifest to check."`
	Artifact string `placeholder:"FILE" help:"The artifact that provisions (provision.pxe): its names count. Default: the boot artifact that the manifest lists, if it lies beside the manifest."`
	JSON     bool   `name:"json" help:"Print the problems as JSON."`
}

// Help returns the examples of the verb.
func (*ManifestCheckCmd) Help() string {
	return `Examples:

  gprov manifest check manufData.json
  gprov manifest check --artifact files/provision.pxe files/manufData.json
  gprov manifest check --json manufData.json

Warnings do not change the exit status. The signature is not checked: units do that, with the keys of their policy.`
}

// Run prints the problems. It is an error if units would refuse the manifest.
func (m *ManifestCheckCmd) Run(c *Context) error {
	b, err := os.ReadFile(m.File)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	parsed, err := manifest.Parse(b)
	if err != nil { // Check says it with its line
		parsed = &manifest.Manifest{}
	}
	names, more, err := manifestNames(c, parsed, filepath.Dir(m.File), m.Artifact)
	if err != nil {
		return err
	}
	return reportProblems(c, m.File, append(manifest.Check(b, rules(c, names)), more...), m.JSON)
}

// reportProblems prints what is wrong with a file, and returns an error if more than warnings are.
func reportProblems(c *Context, file string, ps []source.Problem, asJSON bool) error {
	wrong := 0
	for _, p := range ps {
		if !p.Warning {
			wrong++
		}
	}
	if asJSON {
		if ps == nil {
			ps = []source.Problem{}
		}
		if err := answer.JSON(c.Stdout, map[string]any{"problems": ps}); err != nil {
			return err
		}
	} else {
		printProblems(c.Stdout, file, ps)
	}
	if wrong > 0 {
		return fmt.Errorf("%s has %d problem(s)", file, wrong)
	}
	if !asJSON {
		fmt.Fprintf(c.Stdout, "%s is good\n", file)
	}
	return nil
}

// printProblems writes each problem as FILE:LINE: path: text, with its hint below.
func printProblems(w io.Writer, file string, ps []source.Problem) {
	for _, p := range ps {
		at := file
		if p.Line > 0 {
			at = fmt.Sprintf("%s:%d", file, p.Line)
		}
		p.Line = 0
		fmt.Fprintf(w, "%s: %s\n", at, shown.Line(p.String()))
		if p.Hint != "" {
			fmt.Fprintf(w, "    %s\n", shown.Line(p.Hint))
		}
	}
}

// rules is what units with these names know when they judge a manifest.
func rules(c *Context, names naming.Names) manifest.Rules {
	return manifest.Rules{Prefix: names.ImagePrefix, BootFile: c.Site.Names.BootFile}
}
