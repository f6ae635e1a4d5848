// Package volume is the recovery volume as a handle: who has one reads it with View and changes it with Change, and never asks whether it
// is mounted. Outside of the two, and of Hold, it is not.
//
// What lies on the volume is package state's business. A job that makes a new recovery volume mounts it itself.
package volume

import (
	"errors"

	"gprovision/hw/host"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// Handle is the recovery volume on a partition. It is used by one goroutine at a time.
type Handle struct {
	m    *machine.Machine
	part string
	held bool
}

// At returns the handle of the volume on a partition, by its device node. Nothing is read.
func At(m *machine.Machine, part string) *Handle { return &Handle{m: m, part: part} }

// View has the volume mounted, at least for reading, while do runs. What do returns, and what unmounting does, is the error.
func (h *Handle) View(do func(*state.Volume) error) error { return h.with(true, do) }

// Change has the volume mounted for writing while do runs. When it returns, all that do wrote is on the medium.
func (h *Handle) Change(do func(*state.Volume) error) error { return h.with(false, do) }

func (h *Handle) with(readOnly bool, do func(*state.Volume) error) error {
	if h.held {
		return do(h.open())
	}
	if err := h.mount(readOnly); err != nil {
		return err
	}
	return errors.Join(do(h.open()), h.m.Unmount(h.m.Places.Recovery))
}

// Hold mounts the volume for writing until Drop, for a job that keeps its log there. A volume that is held already stays so.
func (h *Handle) Hold() (*state.Volume, error) {
	if !h.held {
		if err := h.mount(false); err != nil {
			return nil, err
		}
		h.held = true
	}
	return h.open(), nil
}

// Drop forgets that the volume is held: whoever calls it has unmounted everything (machine.Doors.UnmountAll).
func (h *Handle) Drop() { h.held = false }

func (h *Handle) open() *state.Volume { return state.Open(h.m.Places.Recovery) }

func (h *Handle) mount(readOnly bool) error {
	return h.m.Mount(h.part, h.m.Places.Recovery, "ext4", host.MountOptions{ReadOnly: readOnly, NoExec: true, NoSUID: true, NoDev: true})
}
