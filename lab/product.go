package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"gprovision/factory/api"
	"gprovision/factory/vault"
	"gprovision/forge/boot"
	"gprovision/forge/image"
	"gprovision/model/manifest"
	"gprovision/model/naming"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/secret"
	"gprovision/model/signature"
	"gprovision/site"
)

// Names of files in a product's directory.
const (
	FilesDir      = "files"                               // what the server gives to units, below the data directory
	ManifestFile  = "manufData.json"                      // the manifest
	ProvisionFile = "provision.pxe"                       // the boot artifact that may provision
	BootFile      = "norm_boot"                           // the boot artifact of the release
	operatorFile  = "operators.txt"                       // the operator's public age key, for the vault
	signingFile   = "signing.key"                         // of images and manifests; a real factory keeps it elsewhere
	privateFile   = "operator.key"                        // the operator's private age key; a real operator keeps it elsewhere
	manifestLabel = "1"                                   // serial number of the manifest
	bootArgs      = "console=ttyS0,115200 panic=10 quiet" // of the artifacts
)

// Platform is the platform of virtual units in the built-in appliance table, with the sizes of its disks in bytes.
const (
	PlatformName         = "QEMU"
	PlatformManufacturer = "GPROV_QEMU"
	PlatformProduct      = "widget"
	PlatformProductLCD   = "widget-lcd" // the same with a 635 on ttyS1
	RecoverySize         = int64(4) << 30
	MainSize             = int64(8) << 30
)

// Product is what a company has made before the first unit comes: keys, the server's authority, a policy, boot artifacts,
// releases and a manifest. Its directory is the data directory of a gprov serve.
type Product struct {
	// Dir is the directory.
	Dir string
	// Policy is that of the boot artifacts, and Platforms their appliance table; nil: the built-in one. Where it is locked, the
	// provisioning artifact is not: it needs the manifest's address from the server.
	Policy    policy.Policy
	Platforms []byte
	// Names are those of the boot artifacts; the zero value: they have none, and init goes by those of the stock Site.
	Names naming.Names
	// SecureBoot signs the boot artifacts; nil: they are not signed.
	SecureBoot *SecureBootKey
	// Operator is the operator's private age key, as text, and OperatorPublic the public one.
	Operator       secret.Secret
	OperatorPublic string

	key signature.PrivateKey
}

// NewProduct makes keys and a server's authority in dir, which is made.
func NewProduct(dir string) (*Product, error) {
	p := &Product{Dir: dir}
	if err := os.MkdirAll(p.Path(""), 0o755); err != nil {
		return nil, fmt.Errorf("make product: %w", err)
	}
	var err error
	if p.key, err = signature.NewKey(); err != nil {
		return nil, fmt.Errorf("make product: %w", err)
	}
	text, err := p.key.Text("")
	if err != nil {
		return nil, fmt.Errorf("make product: %w", err)
	}
	if p.Operator, p.OperatorPublic, err = vault.NewKey(); err != nil {
		return nil, fmt.Errorf("make product: %w", err)
	}
	for name, b := range map[string][]byte{
		signingFile: text, "signing.pub": p.key.Public().Text(), privateFile: []byte(p.Operator.Reveal()), operatorFile: []byte(p.OperatorPublic + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, fmt.Errorf("make product: %w", err)
		}
	}
	return p, p.setPolicy()
}

// OpenProduct opens what NewProduct made in dir, with its first policy.
func OpenProduct(dir string) (*Product, error) {
	p := &Product{Dir: dir}
	text := map[string]string{}
	for _, name := range []string{signingFile, privateFile, operatorFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("open product: %w", err)
		}
		text[name] = string(b)
	}
	var err error
	if p.key, err = signature.ParsePrivateKey(text[signingFile], ""); err != nil {
		return nil, fmt.Errorf("open product: %w", err)
	}
	p.Operator, p.OperatorPublic = secret.Secret(text[privateFile]), strings.TrimSpace(text[operatorFile])
	return p, p.setPolicy()
}

// setPolicy gives the product the first policy: its own key, and the authority of its server, which is made if it is missing.
func (p *Product) setPolicy() error {
	authority, err := api.OpenAuthority(p.Dir)
	if err != nil {
		return fmt.Errorf("open the server's authority: %w", err)
	}
	p.Policy = policy.Policy{Version: policy.Version, Keys: []string{p.key.Public().String()}, ServerCA: string(authority.PEM()), BootArgs: bootArgs}
	return nil
}

// Path is where the server's file with that name is.
func (p *Product) Path(name string) string { return filepath.Join(p.Dir, FilesDir, name) }

// Artifacts builds both boot artifacts, norm_boot and provision.pxe, with that build number from a root filesystem.
func (p *Product) Artifacts(ctx context.Context, log *slog.Logger, rootfs, init string, build uint64) error {
	for name, provision := range map[string]bool{BootFile: false, ProvisionFile: true} {
		o := boot.Options{RootFS: rootfs, Init: init, Policy: p.Policy, Platforms: p.Platforms, Names: p.Names, Provision: provision, BuildNumber: build, Time: time.Now(), Out: p.Path(name)}
		o.Policy.Locked = o.Policy.Locked && !provision
		if p.SecureBoot != nil {
			o.Signer, o.Certificates = p.SecureBoot.Signer, []*x509.Certificate{p.SecureBoot.Certificate}
		}
		if _, err := boot.Build(ctx, log, o); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	return nil
}

// Sign writes the signature of an image beside it.
func (p *Product) Sign(name string) error {
	n, err := release.ParseName(name, p.prefix())
	if err != nil {
		return err
	}
	return p.sign(name, signature.ImageComment(n.Base()))
}

// SignArtifact writes the signature of the boot artifact with that build number beside it: units trust it then whatever image holds it.
func (p *Product) SignArtifact(build uint64) error {
	return p.sign(BootFile, signature.ArtifactComment(p.prefix(), build))
}

// prefix is how the images are called.
func (p *Product) prefix() string { return site.Stock().Names.Of(p.Names).ImagePrefix }

func (p *Product) sign(name, comment string) error {
	f, err := os.Open(p.Path(name))
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	defer f.Close()
	sig, err := p.key.Sign(f, comment)
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	if err := os.WriteFile(p.Path(name+signature.Suffix), sig, 0o644); err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	return nil
}

// Manifest writes and signs the manifest for units of the lab's platform. They get norm_boot and the images. change, which
// may be nil, changes the manifest before it is signed.
func (p *Product) Manifest(images []string, change func(*manifest.Manifest)) error {
	m := &manifest.Manifest{
		LogEndpoint: "https://" + ServerAddr.Addr().String() + ":" + serverPort, CredentialEndpoint: manifest.Vault,
		ValidationData: []manifest.Specs{{
			DevCodeName:     PlatformName,
			Recovery:        manifest.Disk{Size: RecoverySize},
			MainDiskConfigs: [][]manifest.Disk{{{Size: MainSize}}},
		}},
	}
	for _, name := range append(append([]string(nil), images...), BootFile) {
		m.Files = append(m.Files, manifest.File{Src: name})
	}
	m, err := manifest.Make(m, func(f manifest.File) (io.ReadCloser, error) { return os.Open(p.Path(f.Src)) })
	if err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	if change != nil {
		change(m)
	}
	b, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	if err := os.WriteFile(p.Path(ManifestFile), b, 0o644); err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	return p.sign(ManifestFile, signature.ManifestComment(PlatformName, manifestLabel))
}

// Copy makes a second product in dir with the same keys, authority and files, for a server with a memory of its own. The
// files are linked: change none of them in place.
func (p *Product) Copy(dir string) (*Product, error) {
	out := p.In(dir)
	if err := os.MkdirAll(out.Path(""), 0o755); err != nil {
		return nil, fmt.Errorf("copy product: %w", err)
	}
	for _, name := range []string{api.CAFile, api.CAKeyFile, operatorFile} {
		if err := copyFile(filepath.Join(dir, name), filepath.Join(p.Dir, name)); err != nil {
			return nil, err
		}
	}
	files, err := os.ReadDir(p.Path(""))
	if err != nil {
		return nil, fmt.Errorf("copy product: %w", err)
	}
	for _, f := range files {
		if err := os.Link(p.Path(f.Name()), out.Path(f.Name())); err != nil {
			return nil, fmt.Errorf("copy product: %w", err)
		}
	}
	return out, nil
}

// In is the same product whose data are in dir already.
func (p *Product) In(dir string) *Product {
	out := *p
	out.Dir = dir
	return &out
}

// Replace gives a file of the server a new content, without touching what copies share.
func (p *Product) Replace(name string, content []byte) error {
	if err := os.Remove(p.Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := os.WriteFile(p.Path(name), content, 0o644); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

// Reveal decrypts what Server.ReadCredentials returned and returns the password of a unit's admin.
func (p *Product) Reveal(unit string, generation uint64, ciphertext []byte) (secret.Secret, error) {
	ids, err := age.ParseIdentities(strings.NewReader(p.Operator.Reveal()))
	if err != nil {
		return "", fmt.Errorf("read credentials of %s: %w", unit, err)
	}
	c, err := vault.Open(ids, unit, generation, ciphertext)
	if err != nil {
		return "", fmt.Errorf("read credentials of %s: %w", unit, err)
	}
	return c.OS, nil
}

// Release makes a signed image of a root filesystem in the product's files, with norm_boot inside, and returns its name. The
// higher n, up to 9999, the newer. add are more files for it.
func (p *Product) Release(ctx context.Context, log *slog.Logger, rootfs string, n uint64, preset string, progress func(image.Progress), add ...image.File) (string, error) {
	r, err := image.Build(ctx, log, image.Options{
		RootFS: rootfs, Out: p.Path(""), Preset: preset, BlockSize: 4 << 20, Key: &p.key, Time: time.Now(), Progress: progress,
		Name: release.Name{Prefix: p.prefix(), Date: time.Now().UTC().Truncate(24 * time.Hour), Build: n},
		Add:  append([]image.File{{Local: p.Path(BootFile), Dest: "boot/" + BootFile, Mode: 0o644}}, add...),
	})
	if err != nil {
		return "", err
	}
	return filepath.Base(r.File), nil
}
