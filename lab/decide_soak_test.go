//go:build soak

package lab_test

import (
	"regexp"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestSoakNetworkRecovery has a unit without a good image, which fetches one as the policy allows.
func TestSoakNetworkRecovery(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n := network(t)
	p := product(t, l.tiny)
	l.serve(t, n, p)
	serveUpdates(t, n, p)
	u := l.fork(t, n, layout.UEFI, nil)
	offlineChange(t, u, "recovery", func(o offline) {
		for _, image := range l.images {
			o.do("rm /Image/%s", image)
			o.do("rm /Image/%s.minisig", image)
		}
	})
	offlineChange(t, u, "main", func(o offline) { o.do("rm /boot.normal") })
	start(t, u)
	whole(t, up(t, u), "2")
	seen(t, u, 1, lab.Msg("image fetched"), "image from the network")
	if !regexp.MustCompile(`Downloading +[1-9][0-9]* %`).MatchString(u.Console()) {
		t.Error("nobody saw how far the download was")
	}
	seen(t, u, 1, jobState("restore", "succeeded"), "restore")
}
