package uplink

import (
	"context"
	"net/url"
	"path"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

func TestVerify(t *testing.T) {
	key := keytest.New(t)
	const text = `{"Files": []}`
	keys := []signature.PublicKey{keytest.New(t).Public(), key.Public()}
	for _, tc := range []struct {
		name, sig string
		keys      []signature.PublicKey
		want      *fault.Fault
	}{
		{"one of two keys", keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7")), keys, nil},
		{"no keys", keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7")), nil, fault.ManifestSignature},
		{"another key", keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7")), keys[:1], fault.ManifestSignature},
		{"another file", keytest.Sign(t, key, text+"\n", signature.ManifestComment("WIDGET", "7")), keys, fault.ManifestSignature},
		{"comment changed", strings.Replace(keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7")), "manifest WIDGET 7", "manifest WIDGET 8", 1), keys, fault.ManifestSignature},
		{"an image's", keytest.Sign(t, key, text, signature.ImageComment("WIDGET.LNX.SHINY.2026-11-22.0001.upd")), keys, fault.ManifestSignature},
		{"a word that begins in the same way", keytest.Sign(t, key, text, "manifesto WIDGET 7"), keys, fault.ManifestSignature},
		{"no serial number", keytest.Sign(t, key, text, "manifest WIDGET"), keys, fault.ManifestSignature},
		{"nothing", "", keys, fault.ManifestSignature},
	} {
		s, err := Verify([]byte(text), []byte(tc.sig), Trust{Keys: tc.keys})
		if fault.Of(err) != tc.want || err == nil && s != (Signed{"WIDGET", "7"}) {
			t.Errorf("%s: got %v, %v, want %v", tc.name, s, err, tc.want)
		}
	}
}

// TestVerifyObeys: a valid signature is not enough. The policy must accept the product and the age, and nothing older
// than a used manifest comes back.
func TestVerifyObeys(t *testing.T) {
	key := keytest.New(t)
	const text = `{"Files": []}`
	used := state.Manifests{}.Used("WIDGET", "7")
	for _, tc := range []struct {
		name            string
		product, serial string
		p               policy.Policy
		used            state.Manifests
		want            string
	}{
		{"a new unit", "WIDGET", "1", policy.Policy{}, state.Manifests{}, ""},
		{"the same again", "WIDGET", "7", policy.Policy{}, used, ""},
		{"newer", "WIDGET", "8", policy.Policy{}, used, ""},
		{"older than used", "WIDGET", "6", policy.Policy{}, used, "sign the old content with a higher one"},
		{"not comparable with what was used", "WIDGET", "six", policy.Policy{}, used, "whole number"},
		{"of another product, older", "GADGET", "1", policy.Policy{}, used, ""},
		{"of another product than wanted", "GADGET", "9", policy.Policy{ManifestProduct: "WIDGET"}, used, `"GADGET"`},
		{"of the wanted product", "WIDGET", "9", policy.Policy{ManifestProduct: "WIDGET"}, used, ""},
		{"older than wanted", "WIDGET", "9", policy.Policy{OldestManifest: 10}, used, "wants 10"},
		{"wanted, and older than used", "WIDGET", "6", policy.Policy{OldestManifest: 5}, used, "used 7"},
	} {
		sig := keytest.Sign(t, key, text, signature.ManifestComment(tc.product, tc.serial))
		_, err := Verify([]byte(text), []byte(sig), Trust{Policy: tc.p, Keys: []signature.PublicKey{key.Public()}, Used: tc.used})
		if (err == nil) != (tc.want == "") || err != nil && (fault.Of(err) != fault.ManifestRefused || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestFetch: the signature beside a manifest decides. A missing one passes only if the policy allows it.
func TestFetch(t *testing.T) {
	key := keytest.New(t)
	const text = `{"Files": [{"Src": "a.upd", "Dest": "Image"}]}`
	good := keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7"))
	base, err := url.Parse("http://server/dir/m.json?unit=5")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		unsigned bool
		files    map[string]string
		want     *fault.Fault
		signed   Signed
	}{
		{"signed", false, map[string]string{"m.json": text, "m.json.minisig": good}, nil, Signed{"WIDGET", "7"}},
		{"signed, where that is not needed", true, map[string]string{"m.json": text, "m.json.minisig": good}, nil, Signed{"WIDGET", "7"}},
		{"by a bad signature, where none is needed", true, map[string]string{"m.json": text + " ", "m.json.minisig": good}, fault.ManifestSignature, Signed{}},
		{"not signed", false, map[string]string{"m.json": text}, fault.ManifestUnsigned, Signed{}},
		{"not signed, where that is allowed", true, map[string]string{"m.json": text}, nil, Signed{}},
		{"not there", true, nil, fault.ManifestMissing, Signed{}},
		{"no manifest", true, map[string]string{"m.json": "<html>"}, fault.ManifestSyntax, Signed{}},
		{"no manifest, beside a signature", false, map[string]string{"m.json": "{no", "m.json.minisig": good}, fault.ManifestSyntax, Signed{}},
	} {
		get := func(_ context.Context, address string, _ int64) ([]byte, error) {
			a, err := url.Parse(address)
			if err != nil || a.RawQuery != "unit=5" {
				t.Errorf("%s: asked for %s, %v", c.name, address, err)
			}
			b, ok := c.files[path.Base(a.Path)]
			if !ok {
				return nil, report.ErrNotFound
			}
			return []byte(b), nil
		}
		m, err := Fetch(t.Context(), base, Trust{Policy: policy.Policy{AllowUnsigned: c.unsigned}, Keys: []signature.PublicKey{key.Public()}}, get)
		if fault.Of(err) != c.want || (err == nil) != (c.want == nil) || m.Signed != c.signed {
			t.Errorf("%s: %+v, %v", c.name, m.Signed, err)
		}
		if err == nil && (m.Written.Files[0].Src != "a.upd" || m.Full.Files[0].Src != "http://server/dir/a.upd") {
			t.Errorf("%s: %q and %q", c.name, m.Written.Files[0].Src, m.Full.Files[0].Src)
		}
	}
}
