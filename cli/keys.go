package cli

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/google/shlex"
	"golang.org/x/term"

	"gprovision/cli/answer"
	"gprovision/forge/image"
	"gprovision/forge/image/signer"
	"gprovision/model/secret"
	"gprovision/model/signature"
)

// KeysCmd holds the verbs about signing keys.
type KeysCmd struct {
	New    KeysNewCmd    `cmd:"" help:"Make a key pair for signing images and manifests."`
	Public KeysPublicCmd `cmd:"" help:"Make a .pub file of an Ed25519 public key, such as an HSM's."`
}

// KeysPublicCmd is "gprov keys public".
type KeysPublicCmd struct {
	File string `arg:"" help:"Public key in PEM, as OpenSSL and the programs of HSMs write it."`
	Out  string `required:"" placeholder:"NAME.pub" help:"File to write. An existing one is never overwritten."`
}

// Help returns what --help prints below the usage.
func (*KeysPublicCmd) Help() string {
	return `For keys that never leave an HSM: the .pub file goes into policies, and beside --signer. The key's identifier is made of its
hash, so the same key gives the same file.

Example:
  gprov keys public hsm-key.pem --out release.pub`
}

// Run makes the file.
func (k *KeysPublicCmd) Run(c *Context) error {
	text, err := os.ReadFile(k.File)
	if err != nil {
		return err
	}
	hint := func(err error) error {
		return &HintError{fmt.Errorf("%s: %w", k.File, err), "want an Ed25519 public key in PEM: openssl pkey -in private.pem -pubout"}
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return hint(errors.New("not a public key in PEM"))
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return hint(err)
	}
	raw, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return hint(errors.New("a key of another kind than Ed25519"))
	}
	sum := sha256.Sum256(raw)
	key, err := signature.PublicKeyOf(raw, binary.LittleEndian.Uint64(sum[:]))
	if err != nil {
		return err
	}
	if err := writeNew(k.Out, key.Text(), 0o644); err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	fmt.Fprintf(c.Stdout, "made %s\n", k.Out)
	imageTable(c.Stdout, [][2]string{{"key", key.ID()}, {"public", key.String()}})
	return nil
}

// Variables of the environment that hold a private key (the text of a .key file, or its base64 line) and its passphrase.
const (
	keyVariable        = "GPROV_SIGNING_KEY"
	passphraseVariable = "GPROV_SIGNING_PASSPHRASE"
)

// SigningFlags say where the key is that signs.
type SigningFlags struct {
	Key        string `placeholder:"FILE" help:"Private key to sign with. Default: the text in the environment variable GPROV_SIGNING_KEY."`
	Passphrase string `name:"passphrase-file" placeholder:"FILE" help:"File whose first line is the key's passphrase. Default: the environment variable GPROV_SIGNING_PASSPHRASE."`
	Signer     string `placeholder:"PROGRAM" help:"Program, with arguments, that signs with a key of its own, such as one in an HSM."`
	SignerKey  string `name:"signer-key" placeholder:"PUB" help:"Public key of --signer: a .pub file, or its base64 line."`
}

// signer returns what signs, or nil if no key is given.
func (f *SigningFlags) signer(c *Context) (image.Signer, error) {
	if f.Signer == "" && f.SignerKey != "" || f.Signer != "" && (f.SignerKey == "" || f.Key != "") {
		return nil, &UsageError{errors.New("--signer needs --signer-key, and goes without --key")}
	}
	if f.Signer != "" {
		program, err := shlex.Split(f.Signer)
		if err != nil {
			return nil, &UsageError{fmt.Errorf("--signer %q: %w", f.Signer, err)}
		}
		keys, err := readPublicKeys([]string{f.SignerKey})
		if err != nil {
			return nil, err
		}
		return signer.Program(c, slog.New(slog.DiscardHandler), program, keys[0])
	}
	var key signature.PrivateKey
	var err error
	switch text := os.Getenv(keyVariable); {
	case f.Key != "":
		key, err = readPrivateKey(c, f.Key, f.Passphrase)
	case text != "":
		key, err = parsePrivateKey(c, text, keyVariable, f.Passphrase)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// KeysNewCmd is "gprov keys new".
type KeysNewCmd struct {
	Out        string `required:"" placeholder:"NAME" help:"Writes NAME.pub and NAME.key. Existing files are never overwritten."`
	Passphrase string `name:"passphrase-file" xor:"pass" placeholder:"FILE" help:"Encrypt the private key; the first line of FILE is the passphrase."`
	Encrypt    bool   `xor:"pass" help:"Encrypt the private key; ask for the passphrase on the terminal."`
	JSON       bool   `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*KeysNewCmd) Help() string {
	return `The files are in the format of minisign. The public key goes into the policy of the boot artifact; the private key stays
with whoever releases, never on the factory server.

Examples:
  gprov keys new --out release
  gprov keys new --out release --encrypt`
}

// Run makes the pair.
func (k *KeysNewCmd) Run(c *Context) error {
	pub, priv := k.Out+".pub", k.Out+".key"
	for _, f := range []string{pub, priv} {
		if _, err := os.Lstat(f); err == nil {
			return &HintError{fmt.Errorf("%s is there already", f), "keys are never overwritten: choose another --out"}
		}
	}
	var pass secret.Secret
	var err error
	switch {
	case k.Passphrase != "":
		pass, err = passphraseFrom(k.Passphrase)
	case k.Encrypt:
		pass, err = askPassphrase(c, "Passphrase for "+priv+": ")
		if err == nil {
			var again secret.Secret
			if again, err = askPassphrase(c, "Again: "); err == nil && !pass.Equal(again) {
				err = errors.New("the two passphrases differ")
			}
		}
	}
	if err != nil {
		return err
	}
	key, err := signature.NewKey()
	if err != nil {
		return err
	}
	text, err := key.Text(pass)
	if err != nil {
		return err
	}
	if err := writeNew(priv, text, 0o600); err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	if err := writeNew(pub, key.Public().Text(), 0o644); err != nil {
		os.Remove(priv)
		return fmt.Errorf("write public key: %w", err)
	}
	if k.JSON {
		return answer.JSON(c.Stdout, map[string]any{"public": pub, "private": priv, "keyID": key.Public().ID(), "key": key.Public().String(), "encrypted": !pass.Empty()})
	}
	fmt.Fprintf(c.Stdout, "made %s and %s\n", pub, priv)
	imageTable(c.Stdout, [][2]string{{"key", key.Public().ID()}, {"public", key.Public().String()}})
	if pass.Empty() {
		fmt.Fprintf(c.Stderr, "note: %s is not encrypted; keep it where only the release job can read it\n", priv)
	}
	return nil
}

// writeNew writes a file that must not be there yet, and syncs it.
func writeNew(name string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(name)
	}
	return err
}

// readPrivateKey reads a .key file. An encrypted one needs the file with its passphrase, or a terminal to ask on.
func readPrivateKey(c *Context, file, passphraseFile string) (signature.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return signature.PrivateKey{}, fmt.Errorf("--key: %w", err)
	}
	return parsePrivateKey(c, string(text), "--key "+file, passphraseFile)
}

// parsePrivateKey reads the text of a .key file. An encrypted one needs the file with its passphrase, the environment variable
// with it, or a terminal to ask on.
func parsePrivateKey(c *Context, text, from, passphraseFile string) (signature.PrivateKey, error) {
	var pass secret.Secret
	var err error
	if signature.Encrypted(text) {
		given := os.Getenv(passphraseVariable)
		switch {
		case passphraseFile != "":
			pass, err = passphraseFrom(passphraseFile)
		case given != "":
			pass = secret.Secret(given)
		default:
			pass, err = askPassphrase(c, "Passphrase for "+strings.TrimPrefix(from, "--key ")+": ")
		}
		if err != nil {
			return signature.PrivateKey{}, err
		}
	}
	key, err := signature.ParsePrivateKey(text, pass)
	if err != nil {
		hint := "want a private key: the .key file that 'gprov keys new' makes"
		if errors.Is(err, signature.ErrPassphrase) {
			hint = "check the passphrase"
		} else if _, e := signature.ParsePublicKey(text); e == nil {
			hint = "this is a public key; the private one ends in .key"
		}
		return signature.PrivateKey{}, &HintError{fmt.Errorf("%s: %w", from, err), hint}
	}
	return key, nil
}

// passphraseFrom reads the first line of a file.
func passphraseFrom(file string) (secret.Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("--passphrase-file %s: its first line is empty", file)
	}
	return secret.Secret(line), nil
}

// askPassphrase asks on the terminal, without showing what is typed.
func askPassphrase(c *Context, prompt string) (secret.Secret, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return "", &HintError{errors.New("a passphrase is needed, and standard input is not a terminal"), "give it with --passphrase-file FILE, or in the environment variable " + passphraseVariable}
	}
	fmt.Fprint(c.Stderr, prompt)
	b, err := term.ReadPassword(in)
	fmt.Fprintln(c.Stderr)
	if err != nil {
		return "", fmt.Errorf("read passphrase: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("the passphrase is empty")
	}
	return secret.Secret(b), nil
}
