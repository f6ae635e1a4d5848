package lab_test

import (
	"os"
	"path/filepath"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestSecureBoot has firmware that starts only what our key has signed: it refuses an unsigned provisioning artifact, and starts
// the signed one, which gets its manifest all the same.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.secure(t, network(t))
	if _, err := await(u, bootPatience, jobState("provision", "started")); err != nil {
		t.Fatal(err)
	}
}

// secure returns a unit with Secure Boot that has refused an unsigned provisioning artifact and is about to get a signed one. Its
// policy is locked.
func (l *life) secure(t *testing.T, n *lab.Network) *lab.Unit {
	t.Helper()
	p, err := lab.NewProduct(filepath.Join(workDir(t, 2<<30), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if p.SecureBoot, err = lab.NewSecureBootKey(); err != nil {
		t.Fatal(err)
	}
	p.Platforms, p.Policy.Locked = l.tiny.Platforms, true
	if err := p.Artifacts(t.Context(), logger(t), l.debian, l.init, 1); err != nil {
		t.Fatal(err)
	}
	image, err := p.Release(t.Context(), logger(t), l.tinyRoot(2), 2, "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Manifest([]string{image}, specifications); err != nil {
		t.Fatal(err)
	}
	var artifacts [2][]byte // the signed and the unsigned one
	for i, p := range []*lab.Product{p, l.tiny} {
		if artifacts[i], err = os.ReadFile(p.Path(lab.ProvisionFile)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Replace(lab.ProvisionFile, artifacts[1]); err != nil {
		t.Fatal(err)
	}
	l.serve(t, n, p)
	c := config(layout.UEFI, lab.VirtIO)
	c.SecureBoot = p.SecureBoot.Certificate.Raw
	u := newUnit(t, n, c)
	start(t, u)
	shown(t, u, 0, "the provisioning artifact cannot be loaded")
	seen(t, u, 0, lab.Msg("init"), "start of an unsigned artifact")
	if err := p.Replace(lab.ProvisionFile, artifacts[0]); err != nil {
		t.Fatal(err)
	}
	return u // which asks again by itself
}
