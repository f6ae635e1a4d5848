package policy

import (
	"errors"
	"fmt"
	"strings"

	"gprovision/model/signature"
	"gprovision/model/source"
)

// Check reads a policy as Parse does, only more strictly: for whoever builds an artifact, a key that is not known is a typing error, and
// what an artifact would do instead is not what was meant. It returns all that is wrong, in the order of the lines; keys that begin
// with an underscore are comments. The policy is of use if no problem is more than a warning.
func Check(b []byte) (Policy, []source.Problem) {
	txt, err := source.Parse(b)
	if err != nil {
		var p source.Problem
		if !errors.As(err, &p) {
			p.Text = err.Error()
		}
		return Policy{}, []source.Problem{p}
	}
	ps := append(txt.Match(Policy{}), txt.Unknown(Policy{})...)
	p, err := Parse(b)
	if err != nil && source.Join(ps) == nil {
		ps = append(ps, problem(txt, err))
	}
	if err != nil {
		return Policy{}, ps
	}
	for key, keys := range map[string][]string{"keys": p.Keys, "supportKeys": p.SupportKeys} {
		for i, k := range keys {
			path := fmt.Sprintf("%s[%d]", key, i)
			if _, err := signature.ParsePublicKey(k); err != nil {
				ps = append(ps, source.Problem{Line: txt.Line(path), Path: path, Text: err.Error(), Hint: "the second line of a .pub file"})
			}
		}
	}
	warn := func(path, text, hint string) {
		ps = append(ps, source.Problem{Line: txt.Line(path), Path: path, Text: text, Hint: hint, Warning: true})
	}
	if p.AllowUnsigned && len(p.Keys) > 0 {
		warn("allowUnsigned", "who can hide a signature decides whether one is checked: steps of unsigned manifests are not run, since there are keys", "leave allowUnsigned out, or the keys")
	}
	if p.AllowUnsigned && (p.ManifestProduct != "" || p.OldestManifest != 0) {
		warn("allowUnsigned", "an unsigned manifest names no product and no serial number, so manifestProduct and oldestManifest do not hold for it", "leave allowUnsigned out")
	}
	if p.Provision && p.ServerCA == "" {
		warn("provision", "without serverCA no factory server can be trusted, so no unit gets credentials", "put ca.pem of the server's data directory into serverCA")
	}
	return p, ps
}

// problem puts an error of Validate at the line of the key that it names first.
func problem(txt *source.Text, err error) source.Problem {
	p := source.Problem{Line: txt.Line(""), Text: err.Error()}
	for _, w := range strings.Fields(err.Error()) {
		if w = strings.Trim(w, ":,"); txt.Has(w) {
			p.Path, p.Line = w, txt.Line(w)
			break
		}
	}
	return p
}
