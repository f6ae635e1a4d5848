package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"gprovision/forge/boot"
	"gprovision/model/naming"
	"gprovision/model/signature"
)

// BootSignCmd is "gprov boot sign".
type BootSignCmd struct {
	Files   []string `arg:"" name:"file" help:"The boot artifacts."`
	Product string   `placeholder:"PREFIX" help:"How the names of the product's images begin. Default: as the artifact's names say, else as this gprov names images."`
	SigningFlags
}

// Help returns the examples of the verb.
func (*BootSignCmd) Help() string {
	return `Writes FILE.minisig: a unit then trusts the artifact by itself, and not only as part of a signed image.

Examples:

  gprov boot sign --key product.key norm_boot
  gprov boot sign --key product.key --product ACME.LNX.FOX norm_boot`
}

// Run signs the artifacts.
func (s *BootSignCmd) Run(c *Context) error {
	key, err := s.signer(c)
	if err != nil {
		return err
	}
	if key == nil {
		return &UsageError{errors.New("no key: give --key FILE, or --signer and --signer-key, or set GPROV_SIGNING_KEY")}
	}
	for _, name := range s.Files {
		comment, sig, err := signArtifact(name, s.Product, c.Site.Names.Chosen(), key.Sign)
		if err != nil {
			return &HintError{fmt.Errorf("sign %s: %w", name, err), "want a boot artifact with a build number, as 'gprov boot build' makes it"}
		}
		if err := os.WriteFile(name+signature.Suffix, sig, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "signed %s as %q by key %s\n", name, comment, key.Public().ID())
	}
	return nil
}

// signArtifact signs for a product; empty: the one that the artifact's names are of, or else the others.
func signArtifact(name, product string, others naming.Names, sign func(io.Reader, string) ([]byte, error)) (comment string, sig []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	in, err := boot.Inspect(f, st.Size())
	if err != nil {
		return "", nil, err
	}
	if in.Build == nil {
		return "", nil, errors.New("it has no build number")
	}
	if product == "" {
		product = in.NamesOr(others).ImagePrefix
	}
	comment = signature.ArtifactComment(product, *in.Build)
	sig, err = sign(io.NewSectionReader(f, 0, st.Size()), comment)
	return comment, sig, err
}
