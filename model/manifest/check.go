package manifest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"gprovision/model/source"
)

// Problem is one thing that is wrong in a manifest.
type Problem = source.Problem

// Check returns everything that is wrong with a manifest, in the order of its lines: what Parse refuses, what a unit would
// stop at later, and, as warnings, what a person should look at. prefix is how the names of images begin.
func Check(b []byte, prefix string) []Problem {
	m, txt, ps := load(b)
	if m != nil && txt != nil {
		c := &checker{txt: txt, ps: ps}
		c.complete(m, prefix)
		ps = c.ps
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Path, b.Path)
	})
	return ps
}

// load returns the manifest, unless its shape is wrong, and the problems for which Parse refuses it (and warnings).
func load(b []byte) (*Manifest, *source.Text, []Problem) {
	txt, err := source.Parse(b)
	if err != nil {
		var p Problem
		if !errors.As(err, &p) {
			p.Text = err.Error()
		}
		return nil, nil, []Problem{p}
	}
	ps := txt.Match(Manifest{})
	if source.Join(ps) != nil {
		return nil, txt, ps
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, txt, append(ps, Problem{Text: err.Error()})
	}
	c := &checker{txt: txt, ps: ps}
	c.sound(&m)
	return &m, txt, c.ps
}

type checker struct {
	txt *source.Text
	ps  []Problem
}

func (c *checker) add(path, text, hint string) {
	c.ps = append(c.ps, Problem{Line: c.txt.Line(path), Path: path, Text: text, Hint: hint})
}

func (c *checker) warn(path, text, hint string) {
	c.ps = append(c.ps, Problem{Line: c.txt.Line(path), Path: path, Text: text, Hint: hint, Warning: true})
}

// files calls f for each file of the manifest with its path.
func files(m *Manifest, f func(path string, file File)) {
	for i, x := range m.Files {
		f(fmt.Sprintf("Files[%d]", i), x)
	}
	for i, x := range m.StashFiles {
		f(fmt.Sprintf("StashFiles[%d]", i), x)
	}
	for i, p := range m.CustomPlatCfgSteps {
		for j, s := range p.ConfigSteps {
			for k, x := range s.Files {
				f(fmt.Sprintf("CustomPlatCfgSteps[%d].ConfigSteps[%d].Files[%d]", i, j, k), x)
			}
		}
	}
}

// sound finds what Parse refuses.
func (c *checker) sound(m *Manifest) {
	files(m, func(path string, f File) {
		at := func(key string) string { return source.Under(path, key) }
		if why := badAddress(f.Src); why != "" {
			c.add(at("Src"), why, "write an http or https URL, or a path relative to the manifest's own URL")
		} else if f.Base() == "" && f.Dest == "" {
			c.add(at("Src"), "the address names no file", "")
		}
		if _, err := hexSum(f.Sha256, sha256.Size); f.Sha256 != "" && err != nil {
			c.add(at("Sha256"), err.Error(), "make the hashes with 'gprov manifest make'")
		}
		if _, err := hexSum(f.Sha1, sha1.Size); f.Sha1 != "" && err != nil {
			c.add(at("Sha1"), err.Error(), "make the hashes with 'gprov manifest make'")
		}
		if f.Size < 0 {
			c.add(at("Size"), "the size is negative", "")
		}
		if f.Dest != "" {
			if _, err := f.Place(""); err != nil {
				c.add(at("Dest"), fmt.Sprintf("%q is not inside the recovery volume", f.Dest), "write a path without ..")
			}
		}
	})
	if m.ApplianceJsonUrl != "" {
		if why := badAddress(m.ApplianceJsonUrl); why != "" {
			c.add("ApplianceJsonUrl", why, "")
		}
	}
	if m.LogEndpoint != "" {
		if _, err := logURL(m.LogEndpoint); err != nil {
			c.add("LogEndpoint", err.Error(), "write host:port, or a URL that begins with https://")
		}
	}
	for i, s := range m.ValidationData {
		path := fmt.Sprintf("ValidationData[%d]", i)
		at := func(key string) string { return source.Under(path, key) }
		if _, err := regexp.Compile(s.SerNumRegex); err != nil {
			c.add(at("SerNumRegex"), "not a regular expression: "+err.Error(), "the syntax is that of Go")
		}
		c.disk(at("Recovery"), s.Recovery)
		for j, alt := range s.MainDiskConfigs {
			for k, d := range alt {
				c.disk(fmt.Sprintf("%s[%d][%d]", at("MainDiskConfigs"), j, k), d)
			}
		}
		for key := range s.DmiMatches {
			if strings.HasPrefix(key, "_") {
				continue
			}
			if _, err := ParseDMIKey(key); err != nil {
				c.add(at("DmiMatches."+key), err.Error(), "write a dmidecode keyword, or TYPE[N] Field")
			}
		}
	}
	for i, p := range m.CustomPlatCfgSteps {
		for j, s := range p.ConfigSteps {
			for k, cmd := range s.Commands {
				path := fmt.Sprintf("CustomPlatCfgSteps[%d].ConfigSteps[%d].Commands[%d]", i, j, k)
				for key, text := range map[string]string{"Command": cmd.Command, "AddPath": cmd.AddPath, "AddLibPath": cmd.AddLibPath} {
					if err := badTemplate(text); err != nil {
						c.add(source.Under(path, key), err.Error(), "the variables are .RecoveryDir .Serial .BiosPass .IpmiPass .OSPass .DLDir")
					}
				}
				if badTemplate(cmd.Command) != nil {
					continue // said already
				}
				if _, err := cmd.Words(); err != nil {
					c.add(source.Under(path, "Command"), err.Error(), "each word is filled in by itself: a {{...}} ends in the word that it begins in")
				}
			}
		}
	}
}

func (c *checker) disk(path string, d Disk) {
	if d.Size < 0 || d.SizeTolerancePct < 0 || d.SizeTolerancePct > 100 || d.Quantity < 0 || d.Quantity > 1000 {
		c.add(path, "want a size of 0 or more, a tolerance of 0 to 100 percent, and a quantity of 0 to 1000", "")
	}
}

func badAddress(s string) string {
	if s == "" {
		return "the address is missing"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Sprintf("%q is not an address", s)
	case u.Scheme == "" && u.Opaque == "" && u.Host == "":
		return "" // relative
	case u.Scheme == "" && u.Host != "":
		return "" // the scheme of the manifest
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("%q is not an http or https address", s)
	case u.Host == "":
		return fmt.Sprintf("%q names no host", s)
	}
	return ""
}

func badTemplate(text string) error {
	t, err := template.New("").Parse(text)
	if err != nil {
		return fmt.Errorf("not a template: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	if t.Tree == nil {
		return nil
	}
	return unknownField(t.Tree.Root)
}

// unknownField returns an error if a template uses a variable that Variables does not have. What lies inside of range and
// with, where the dot is another one, is passed over.
func unknownField(n parse.Node) error {
	var inner []parse.Node
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			inner = n.Nodes
		}
	case *parse.ActionNode:
		inner = []parse.Node{n.Pipe}
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				inner = append(inner, c)
			}
		}
	case *parse.CommandNode:
		inner = n.Args
	case *parse.IfNode:
		inner = []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.RangeNode:
		inner = []parse.Node{n.Pipe}
	case *parse.WithNode:
		inner = []parse.Node{n.Pipe}
	case *parse.FieldNode:
		if _, ok := reflect.TypeFor[Variables]().FieldByName(n.Ident[0]); !ok || len(n.Ident) > 1 {
			return fmt.Errorf("the variable .%s is not known", strings.Join(n.Ident, "."))
		}
	}
	for _, x := range inner {
		if err := unknownField(x); err != nil {
			return err
		}
	}
	return nil
}

// complete finds what is missing.
func (c *checker) complete(m *Manifest, prefix string) {
	files(m, func(path string, f File) {
		switch {
		case f.Sha1 == "" && f.Sha256 == "":
			c.add(path, "the file has no hash: a unit refuses it", "make the hashes with 'gprov manifest make'")
		case f.Sha256 == "":
			c.warn(path, "the file has SHA-1 alone: a unit refuses it unless its policy allows SHA-1", "add Sha256 with 'gprov manifest make'")
		}
	})
	if len(m.Files) == 0 {
		c.add("Files", "there are no files: nothing would be installed", "add an image and a boot artifact")
	} else if _, err := m.Image(prefix); err != nil {
		c.add("Files", "there is no image: no name begins with "+prefix+" and ends in .upd", "add an image")
	}
	places := map[string]string{}
	for i, f := range m.Files {
		path := fmt.Sprintf("Files[%d]", i)
		if p, err := f.Place(prefix); err == nil {
			if first, ok := places[p]; ok {
				c.add(path, "it goes to "+p+", as "+first+" does", "remove one of them")
			}
			places[p] = path
		}
	}
	if m.LogEndpoint == "" {
		c.add("LogEndpoint", "the key is missing: a unit has nobody to report to", "write the address of the factory server")
	} else if strings.HasPrefix(strings.ToLower(m.LogEndpoint), "http://") {
		c.warn("LogEndpoint", "the address is not encrypted: no credentials are given over it", "write an https address")
	}
	switch m.CredentialEndpoint {
	case Vault:
	case "":
		c.add("CredentialEndpoint", "the key is missing", `write "pblog" for the factory server's own vault`)
	default:
		c.warn("CredentialEndpoint", fmt.Sprintf("%q needs a site with a secret store of its own", m.CredentialEndpoint), `"pblog" is the factory server's own vault`)
	}
	if len(m.ValidationData) == 0 {
		c.add("ValidationData", "there is no specification: no unit would pass", "add one for each platform")
	}
	seen := map[string]bool{}
	for i, s := range m.ValidationData {
		path := fmt.Sprintf("ValidationData[%d]", i)
		c.specs(path, s)
		if seen[s.DevCodeName] {
			c.add(path, fmt.Sprintf("a second entry for %q is never used", s.DevCodeName), "remove one of them")
		}
		seen[s.DevCodeName] = true
	}
	steps := map[string]bool{}
	for i, p := range m.CustomPlatCfgSteps {
		path := fmt.Sprintf("CustomPlatCfgSteps[%d]", i)
		if steps[p.DevCodeName] {
			c.add(path, fmt.Sprintf("a second entry for %q is never used", p.DevCodeName), "put the steps into the first one")
		} else if !seen[p.DevCodeName] {
			c.warn(path, fmt.Sprintf("there is no specification for %q", p.DevCodeName), "")
		}
		steps[p.DevCodeName] = true
		for j, s := range p.ConfigSteps {
			if s.Name == "" {
				c.warn(fmt.Sprintf("%s.ConfigSteps[%d]", path, j), "the step has no name", "logs are easier to read with one")
			}
		}
	}
}

func (c *checker) specs(path string, s Specs) {
	at := func(key string) string { return source.Under(path, key) }
	if s.DevCodeName == "" {
		c.add(at("DevCodeName"), "the key is missing", "it is the name that the appliance table has")
	}
	if c.txt.Has(at("Recovery")) && s.Recovery.Size < 1<<30 {
		c.add(at("Recovery.Size"), fmt.Sprintf("%d bytes, want at least 1 GiB", s.Recovery.Size), "")
	}
	if len(s.MainDiskConfigs) == 0 {
		c.add(at("MainDiskConfigs"), "there is no list of main disks: no unit would pass", "add at least one alternative with one disk")
	}
	for i, alt := range s.MainDiskConfigs {
		p := fmt.Sprintf("%s[%d]", at("MainDiskConfigs"), i)
		if len(alt) == 0 {
			c.add(p, "the alternative has no disks", "")
		}
		for j, d := range alt {
			if d.Size == 0 {
				c.add(fmt.Sprintf("%s[%d].Size", p, j), "the size is missing", "the size as 'blockdev --getsize64' prints it")
			}
		}
	}
	for _, v := range []string{"IPMI", "FRU", "SDR", "ME"} {
		if c.txt.Has(at("FirmwareVer." + v)) {
			if val := map[string]string{"IPMI": s.FirmwareVer.IPMI, "FRU": s.FirmwareVer.FRU, "SDR": s.FirmwareVer.SDR, "ME": s.FirmwareVer.ME}[v]; val != "" {
				c.add(at("FirmwareVer."+v), "this version of the firmware cannot be read, so no unit would pass", "leave it empty")
			}
		}
	}
}
