//! Which labels the series of an expression have.

use std::collections::BTreeMap;

use promql_parser::parser::{Expr, LabelModifier, VectorMatchCardinality, token};

use crate::dashboards::contract::Labels;

/// The labels of an expression's series; an error where it names one that is not there.
pub fn labels_of(expr: &Expr, families: &BTreeMap<String, Labels>) -> Result<Labels, String> {
    match expr {
        Expr::VectorSelector(selector) => {
            let name = selector.name.as_deref().unwrap_or_default();
            let labels = families.get(name);
            labels.cloned().ok_or_else(|| format!("no metric {name}"))
        }
        Expr::MatrixSelector(matrix) => {
            labels_of(&Expr::VectorSelector(matrix.vs.clone()), families)
        }
        Expr::Call(call) => {
            let mut labels = Labels::new();
            for argument in &call.args.args {
                labels.extend(labels_of(argument, families)?);
            }
            Ok(labels)
        }
        Expr::Aggregate(aggregate) => {
            let inner = labels_of(&aggregate.expr, families)?;
            // They choose series and keep them as they are.
            if [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id()) {
                return Ok(inner);
            }
            match &aggregate.modifier {
                None => Ok(Labels::new()),
                Some(LabelModifier::Include(by)) => all_in(&by.labels, &inner),
                Some(LabelModifier::Exclude(without)) => {
                    let gone = all_in(&without.labels, &inner)?;
                    Ok(inner.difference(&gone).cloned().collect())
                }
            }
        }
        Expr::Binary(binary) => {
            let left = labels_of(&binary.lhs, families)?;
            let right = labels_of(&binary.rhs, families)?;
            let Some(modifier) = &binary.modifier else {
                return Ok(either(left, right));
            };
            if let Some(LabelModifier::Include(on)) = &modifier.matching {
                all_in(&on.labels, &left)?;
                all_in(&on.labels, &right)?;
            }
            let carried = match &modifier.card {
                VectorMatchCardinality::ManyToOne(labels) => all_in(&labels.labels, &right)?,
                VectorMatchCardinality::OneToMany(labels) => all_in(&labels.labels, &left)?,
                _ => Labels::new(),
            };
            Ok(either(left, right).union(&carried).cloned().collect())
        }
        Expr::Paren(paren) => labels_of(&paren.expr, families),
        Expr::Unary(unary) => labels_of(&unary.expr, families),
        Expr::Subquery(subquery) => labels_of(&subquery.expr, families),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
        Expr::Extension(_) => Err("not PromQL".to_owned()),
    }
}

/// Those of the left side, of which the operator keeps series; a number has none.
fn either(left: Labels, right: Labels) -> Labels {
    if left.is_empty() { right } else { left }
}

fn all_in(named: &[String], there: &Labels) -> Result<Labels, String> {
    match named.iter().find(|label| !there.contains(*label)) {
        Some(label) => Err(format!("there is no {label} among {there:?}")),
        None => Ok(named.iter().cloned().collect()),
    }
}
