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
	"text/template/parse"

	"gprovision/model/source"
)

// Problem is one thing that is wrong in a manifest.
type Problem = source.Problem

// Check returns everything that is wrong with a manifest, in the order of its lines: what Parse refuses, what units refuse, and, as
// warnings, what a person should look at. It speaks for units of all platforms, and for policies that allow SHA-1 alone, with a warning.
func Check(b []byte, r Rules) []Problem {
	m, txt, ps := load(b)
	if m != nil && txt != nil {
		c := &checker{txt: txt, ps: ps}
		c.obeyed(m, r)
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
	if len(b) > MaxSize {
		return nil, nil, []Problem{{Text: fmt.Sprintf("it has %d bytes, and units read at most %d", len(b), MaxSize)}}
	}
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
	if err := json.Unmarshal(txt.Bytes(), &m); err != nil {
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

// files calls f for each file of the manifest with its path; of the steps those of a platform alone, unless that is "".
func (m *Manifest) files(platform string, f func(path string, file File)) {
	for i, x := range m.Files {
		f(fmt.Sprintf("Files[%d]", i), x)
	}
	for i, x := range m.StashFiles {
		f(fmt.Sprintf("StashFiles[%d]", i), x)
	}
	for i, p := range m.CustomPlatCfgSteps {
		if platform != "" && p.DevCodeName != platform {
			continue
		}
		for j, s := range p.ConfigSteps {
			for k, x := range s.Files {
				f(fmt.Sprintf("CustomPlatCfgSteps[%d].ConfigSteps[%d].Files[%d]", i, j, k), x)
			}
		}
	}
}

// sound finds what Parse refuses.
func (c *checker) sound(m *Manifest) {
	m.files("", func(path string, f File) {
		at := func(key string) string { return source.Under(path, key) }
		if why := badAddress(f.Src); why != "" {
			c.add(at("Src"), why, "write an http or https URL, or a path relative to the manifest's own URL")
		} else if f.Base() == "" { // where it goes to, and what it is, must not depend on what it is relative to
			c.add(at("Src"), "the address names no file", "end it with the name of a file")
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
			if s.Minutes < 0 || s.Minutes > maxStepMinutes {
				c.add(fmt.Sprintf("CustomPlatCfgSteps[%d].ConfigSteps[%d].Minutes", i, j), fmt.Sprintf("want 1 to %d minutes", maxStepMinutes),
					"leave the key out for 30 minutes")
			}
			for k, cmd := range s.Commands {
				c.command(fmt.Sprintf("CustomPlatCfgSteps[%d].ConfigSteps[%d].Commands[%d]", i, j, k), s, cmd)
			}
		}
	}
}

// command finds what no unit can fill in, or split into words.
func (c *checker) command(path string, s Step, cmd Command) {
	before := len(c.ps)
	for _, t := range []struct{ key, text string }{{"Command", cmd.Command}, {"AddPath", cmd.AddPath}, {"AddLibPath", cmd.AddLibPath}} {
		if _, err := parseTemplate(t.text); err != nil {
			c.add(source.Under(path, t.key), err.Error(), "the variables are .RecoveryDir .Serial .BiosPass .IpmiPass .OSPass .DLDir")
		}
	}
	if len(c.ps) > before {
		return
	}
	if _, err := cmd.Words(); err != nil {
		c.add(source.Under(path, "Command"), err.Error(), "each word is filled in by itself: a {{...}} ends in the word that it begins in")
		return
	}
	if _, err := cmd.Fill(Likely().Known(s.When, len(s.Files) > 0)); err != nil {
		c.add(path, err.Error(), "the passwords are there in RunBeforePWSet and RunAfterPWSet alone, .DLDir only in a step with files")
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

// unknownField returns an error if a template uses a variable that Variables does not have, or loops. What lies inside of with, where the
// dot is another one, is passed over.
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
		return errors.New("there is nothing to range over")
	case *parse.WithNode:
		inner = []parse.Node{n.Pipe}
		if loops(n.List) || loops(n.ElseList) {
			return errors.New("there is nothing to range over")
		}
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

// loops reports whether there is a range among nodes.
func loops(n parse.Node) bool {
	var inner []parse.Node
	switch n := n.(type) {
	case *parse.RangeNode:
		return true
	case *parse.ListNode:
		if n != nil {
			inner = n.Nodes
		}
	case *parse.IfNode:
		inner = []parse.Node{n.List, n.ElseList}
	case *parse.WithNode:
		inner = []parse.Node{n.List, n.ElseList}
	}
	return slices.ContainsFunc(inner, loops)
}

// obeyed finds what units refuse, and what a person should look at.
func (c *checker) obeyed(m *Manifest, r Rules) {
	r.AllowSHA1, r.Platform = true, ""
	before := c.ps
	for _, x := range m.Refusals(r) {
		if slices.ContainsFunc(before, func(p Problem) bool { return p.Path == x.Path || strings.HasPrefix(p.Path, x.Path+".") }) {
			continue // said already, and nearer to it
		}
		c.add(x.Path, x.Text, x.Hint)
	}
	m.files("", func(path string, f File) {
		if f.Sha256 == "" && f.Sha1 != "" {
			c.warn(path, "the file has SHA-1 alone: a unit refuses it unless its policy allows SHA-1", "add Sha256 with 'gprov manifest make'")
		}
	})
	if strings.HasPrefix(strings.TrimSpace(m.LogEndpoint), plainScheme) {
		c.warn("LogEndpoint", "units speak https to the server at this port, whatever stands here", "write host:port, or https://host:port")
	}
	if m.CredentialEndpoint == "" {
		c.warn("CredentialEndpoint", "the key is missing: units ask the factory server's own vault", `write "pblog" to say so`)
	}
	seen := map[string]bool{}
	for _, s := range m.ValidationData {
		seen[s.DevCodeName] = true
	}
	for i, p := range m.CustomPlatCfgSteps {
		path := fmt.Sprintf("CustomPlatCfgSteps[%d]", i)
		if !seen[p.DevCodeName] {
			c.warn(path, fmt.Sprintf("there is no specification for %q", p.DevCodeName), "")
		}
		for j, s := range p.ConfigSteps {
			if s.Name == "" {
				c.warn(fmt.Sprintf("%s.ConfigSteps[%d]", path, j), "the step has no name", "logs are easier to read with one")
			}
		}
	}
}
