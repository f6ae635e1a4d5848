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

// Signed is what the signature of a manifest says about it. It is the zero value for an unsigned one.
type Signed struct {
	Product string
	// Serial is the manifest's serial number in the signature. It is usually a number.
	Serial string
}

// Manifest is a manifest that was fetched.
type Manifest struct {
	Signed
	// Written is the manifest as written. Full is the same with all addresses resolved.
	Written, Full *manifest.Manifest
}

// Trust is what a manifest must satisfy.
type Trust struct {
	Policy policy.Policy
	Keys   []signature.PublicKey // the policy's keys, parsed
	// Used are the manifests that the unit has used before.
	Used state.Manifests
}

// Fetch fetches the manifest at base and its signature, and verifies it. get returns the content of a small file of
// at most most bytes. Its error is report.ErrNotFound if there is no such file. An unsigned manifest is accepted if
// the policy allows it. Its Signed is then the zero value.
func Fetch(ctx context.Context, base *url.URL, t Trust, get func(ctx context.Context, address string, most int64) ([]byte, error)) (Manifest, error) {
	raw, err := get(ctx, base.String(), manifest.MaxSize)
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
	// A file that is no manifest at all, such as a server's error page, is reported as that, not as a bad signature.
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

// Verify checks the detached signature of a manifest. It must have been made for a manifest, not another kind of
// file. The policy must accept the product and the serial number, and the unit must not have used a newer manifest.
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

// Small returns the content of a small file of at most most bytes. The content is not verified. The error is
// report.ErrNotFound if there is no such file. It is a fault.NoServer if the server refuses connections: the caller
// could not tell otherwise that the file is not to blame.
func Small(ctx context.Context, log *slog.Logger, client *http.Client, address string, most int64) ([]byte, error) {
	dir, err := os.MkdirTemp("", "fetch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// The client itself gives up on a connection after 30 s. Idle must be longer, or its reason is lost.
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
