// Package script is a panel for tests of code that shows and asks. It records the views and presses keys. It is part
// of no command.
package script

import (
	"slices"
	"strings"
	"sync"

	"gprovision/unit/panel"
)

// Panel is a panel.Panel that types. The zero value is ready.
type Panel struct {
	// Answer, if not nil, is called once for each question. The keys that it returns are pressed.
	Answer func(panel.Asked) []panel.Key

	mu    sync.Mutex
	views []panel.View
	keys  chan panel.Key
	asked int // the last answered question
}

// Show records v and answers a question in it.
func (s *Panel) Show(v panel.View) error {
	s.mu.Lock()
	s.views = append(s.views, v)
	fresh := v.Ask != nil && v.Ask.ID != s.asked && s.Answer != nil
	if fresh {
		s.asked = v.Ask.ID
	}
	s.mu.Unlock()
	if fresh {
		s.Press(s.Answer(*v.Ask)...)
	}
	return nil
}

// Keys returns the channel of pressed keys.
func (s *Panel) Keys() <-chan panel.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(chan panel.Key, 256)
	}
	return s.keys
}

// Types reports whether a Panel can type.
func (s *Panel) Types() bool { return true }

// Press presses keys. It waits once there are 256 keys that nobody has taken.
func (s *Panel) Press(keys ...panel.Key) {
	s.Keys()
	for _, k := range keys {
		s.keys <- k
	}
}

// Type presses the keys of a text.
func (s *Panel) Type(text string) {
	for _, c := range []byte(text) {
		s.Press(panel.Key(c))
	}
}

// Views returns all views in order.
func (s *Panel) Views() []panel.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.views)
}

// Last returns the last view shown, or the zero value if there was none.
func (s *Panel) Last() panel.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.views) == 0 {
		return panel.View{}
	}
	return s.views[len(s.views)-1]
}

// Reader is a panel before which a person presses a key at each message that stays until it was read.
type Reader struct{ *Panel }

// Show remembers v, and presses a key if it is such a message.
func (r Reader) Show(v panel.View) error {
	err := r.Panel.Show(v)
	if v.Problem != nil || strings.HasPrefix(v.Message, "Saved ") {
		r.Press('x')
	}
	return err
}
