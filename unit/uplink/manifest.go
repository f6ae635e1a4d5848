package uplink

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// maxManifest is the largest manifest that is looked at, in bytes.
const maxManifest = 4 << 20

// Signed is what the signature of a manifest says of it. The zero value is that of one without.
type Signed struct {
	Product string
	// Serial is the manifest's own, as it was signed: mostly a number.
	Serial string
}

// Manifest is a manifest that was fetched.
type Manifest struct {
	Signed
	// Written is the manifest as it was written, and Full has all addresses in full.
	Written, Full *manifest.Manifest
}

// Trust is what a manifest has to be good for.
type Trust struct {
	Policy policy.Policy
	Keys   []signature.PublicKey // the policy's keys, parsed
	// Used are the manifests that the unit has used.
	Used state.Manifests
}

// Fetch fetches the manifest at base with its signature, and verifies that. get returns the content of a small file, of at most so many
// bytes; what is not there is report.ErrNotFound. A manifest without a signature is taken where the policy allows that: its Signed is then
// the zero value.
func Fetch(ctx context.Context, base *url.URL, t Trust, get func(ctx context.Context, address string, most int64) ([]byte, error)) (Manifest, error) {
	raw, err := get(ctx, base.String(), maxManifest)
	if err != nil {
		return Manifest{}, fault.Rename(fault.ManifestMissing, err)
	}
	beside := *base
	beside.Path += signature.Suffix
	sig, err := get(ctx, beside.String(), signature.MaxSize)
	switch {
	case errors.Is(err, report.ErrNotFound) && t.Policy.AllowUnsigned:
	case errors.Is(err, report.ErrNotFound):
		return Manifest{}, fault.Newf(fault.ManifestUnsigned, "%s does not exist", beside.Redacted())
	case err != nil:
		return Manifest{}, fault.Rename(fault.ManifestMissing, err)
	}
	// What is no manifest at all, such as a server's page about an error, is told as such and not as a bad signature.
	m, err := manifest.Parse(raw)
	if err != nil {
		return Manifest{}, fault.Because(fault.ManifestSyntax, err)
	}
	out := Manifest{Written: m}
	if sig != nil {
		if out.Signed, err = Verify(raw, sig, t); err != nil {
			return Manifest{}, err
		}
	}
	if out.Full, err = m.Resolve(base); err != nil {
		return Manifest{}, fault.Because(fault.ManifestSyntax, err)
	}
	return out, nil
}

// Verify checks the detached signature of a manifest, that it was made for a manifest and no other kind of file, that the policy wants this
// product and serial number, and that the unit has not used a newer one.
func Verify(raw, sig []byte, t Trust) (Signed, error) {
	trusted, err := signature.Verify(t.Keys, sig, bytes.NewReader(raw))
	if err != nil {
		return Signed{}, fault.Because(fault.ManifestSignature, err)
	}
	var s Signed
	if s.Product, s.Serial, err = signature.ParseManifestComment(trusted); err != nil {
		return Signed{}, fault.Because(fault.ManifestSignature, err)
	}
	if err := errors.Join(t.Policy.CheckManifest(trusted), t.Used.Check(s.Product, s.Serial)); err != nil {
		return Signed{}, fault.Because(fault.ManifestRefused, err)
	}
	return s, nil
}

// Small returns the content of a small file, of at most so many bytes. It is not verified. What is not there is report.ErrNotFound; a server
// that takes no connection is a fault.NoServer, as who asked for the file cannot know that the file is not to blame.
func Small(ctx context.Context, log *slog.Logger, client *http.Client, address string, most int64) ([]byte, error) {
	dir, err := os.MkdirTemp("", "fetch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// A connection is given up after 30 s by the client itself, so Idle must be longer for its reason to be seen.
	o := report.FetchOptions{Client: client, URL: address, Dest: filepath.Join(dir, "file"), MaxSize: most, Idle: 40 * time.Second, Patience: time.Minute, Log: log}
	_, err = report.Fetch(ctx, o)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil, fault.Newf(fault.NoServer, "get %s: %w", address, dial)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(o.Dest)
}
