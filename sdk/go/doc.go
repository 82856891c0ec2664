// SPDX-License-Identifier: Apache-2.0

// Package sluice asks a Sluice server whether a piece of work may run now.
//
// A Client is made once per process and shared. Around the work go two lines:
//
//	flow := client.StartFlow(ctx, "checkout", sluice.Labels{"user_id": "alice"})
//	defer flow.End()
//
// and ShouldRun says whether to do the work. StartFlow waits while the flow is queued, never longer
// than its context; it never panics, never returns nil and never hangs because the server is away:
// then the flow runs (the default) or does not (WithFailClosed), and Flow.Err says why.
//
// # How it talks to the server
//
// All flows of a client share one bidirectional stream. One goroutine sends whatever is queued, up to
// 256 flows a message, without waiting for more to arrive; one goroutine receives the verdicts. Label
// keys travel once per stream (a shape), after that only the values. A flow that does not fit a shape or
// asks the caches, and every flow of a client made WithUnary, is one ordinary call.
//
// Ends travel the same way. They are kept until the server has confirmed the message that carried
// them, and sent again on the next stream when it has not.
//
// # What it does not do
//
// It keeps no global state and touches none of its host: no codec, resolver or tracer is registered,
// and metadata that the caller put into its context is not sent to the Sluice server.
package sluice
